package sessionkey_test

import (
	"fmt"

	"github.com/queue-runtime/queue/sessionkey"
)

func Example() {
	strategy := sessionkey.Fallback{
		sessionkey.Composite{sessionkey.Field("repository.full_name"), sessionkey.Field("pull_request.number")},
		sessionkey.Composite{sessionkey.Field("repository.full_name"), sessionkey.Field("issue.number")},
		sessionkey.Field("repository.full_name"),
	}
	if err := sessionkey.Validate(strategy); err != nil {
		fmt.Println(err)
		return
	}
	for _, body := range []string{
		`{"action":"opened","pull_request":{"number":42},"repository":{"full_name":"octo/hello"}}`,
		`{"action":"closed","issue":{"number":7},"repository":{"full_name":"octo/hello"}}`,
		`{"ref":"refs/heads/main","repository":{"full_name":"octo/hello"}}`,
		`{"zen":"Keep it logically awesome."}`,
		`{"pull_request":"not an object","repository":{"full_name":{}}}`,
	} {
		id, err := strategy.SessionID(&sessionkey.Message{Body: []byte(body), ContentType: "application/json"})
		fmt.Printf("%q %v\n", id, err)
	}
	// Output:
	// "octo/hello:42" <nil>
	// "octo/hello:7" <nil>
	// "octo/hello" <nil>
	// "" <nil>
	// "" sessionkey: field "repository.full_name": no usable session ID: an object or an array: name a field in it
}
