package sbqueue_test

import (
	"flag"
	"os"
	"testing"
)

// side is how many tests run side by side where nothing else is asked for: they
// wait for locks and deadlines in real time, and need little of the processors.
const side = "12"

func TestMain(m *testing.M) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		if err := flag.Set("test.parallel", side); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
