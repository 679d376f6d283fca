package deployment_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// instructions of a Dockerfile, with what follows each; continuation lines are not
// used here.
var instructions = []string{"FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "VOLUME", "ENTRYPOINT"}

// stage is one image of a Dockerfile.
type stage struct {
	base string
	args map[string][]string // by instruction
}

// stages reads a Dockerfile by the names of its stages.
func stages(t *testing.T, text string) map[string]*stage {
	t.Helper()
	all := map[string]*stage{}
	var last *stage
	for i, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		instruction, args, _ := strings.Cut(line, " ")
		switch {
		case !slices.Contains(instructions, instruction) || args == "" || strings.HasSuffix(line, "\\"):
			t.Fatalf("Dockerfile:%d: %q", i+1, line)
		case instruction == "FROM":
			words := strings.Fields(args)
			if len(words) != 3 || words[1] != "AS" {
				t.Fatalf("Dockerfile:%d: want FROM image AS name", i+1)
			}
			last = &stage{base: words[0], args: map[string][]string{}}
			all[words[2]] = last
		case last == nil:
			t.Fatalf("Dockerfile:%d: before FROM", i+1)
		}
		last.args[instruction] = append(last.args[instruction], args)
	}
	return all
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	all := stages(t, content(t, "docker/Dockerfile"))
	build := all["build"]
	if build == nil {
		t.Fatal("no stage build")
	}
	work, err := os.ReadFile("../../go.work")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindStringSubmatch(string(work))
	if version == nil || build.base != "golang:"+version[1] {
		t.Errorf("it builds in %s, go.work has %q", build.base, version)
	}
	built := map[string]bool{}
	for _, folder := range regexp.MustCompile(`\./examples/\S+`).FindAllString(strings.Join(build.args["RUN"], "\n"), -1) {
		if _, err := os.Stat(filepath.Join("../..", folder, "main.go")); err != nil {
			t.Errorf("it builds %s: %v", folder, err)
		}
		built["/out/"+filepath.Base(folder)] = true
	}
	for name, program := range map[string]string{"router": "webhook-router", "bot": "bot"} {
		s := all[name]
		if s == nil || s.base != "scratch" {
			t.Fatalf("no stage %s from scratch", name)
		}
		if user := s.args["USER"]; !slices.Equal(user, []string{"65532:65532"}) {
			t.Errorf("%s runs as %q", name, user)
		}
		var entry []string
		if e := s.args["ENTRYPOINT"]; len(e) != 1 || json.Unmarshal([]byte(e[0]), &entry) != nil || !slices.Equal(entry, []string{"/" + program}) {
			t.Errorf("%s starts %q, want the exec form of /%s", name, e, program)
		}
		if !built["/out/"+program] || !slices.Contains(s.args["COPY"], "--from=build /out/"+program+" /"+program) {
			t.Errorf("%s does not get /%s from the build", name, program)
		}
	}
}

// compose is a file of Docker Compose, as far as ours goes.
type compose struct {
	Services map[string]struct {
		Image           string            `yaml:"image"`
		User            string            `yaml:"user"`
		ReadOnly        bool              `yaml:"read_only"`
		CapDrop         []string          `yaml:"cap_drop"`
		SecurityOpt     []string          `yaml:"security_opt"`
		StopGracePeriod time.Duration     `yaml:"stop_grace_period"`
		Restart         string            `yaml:"restart"`
		Ports           []string          `yaml:"ports"`
		EnvFile         []string          `yaml:"env_file"`
		Environment     map[string]string `yaml:"environment"`
		Volumes         []string          `yaml:"volumes"`
		Tmpfs           []string          `yaml:"tmpfs"`
	} `yaml:"services"`
}

func TestCompose(t *testing.T) {
	t.Parallel()
	file, ok := documents(t, "docker/compose.yaml", func(string) any { return new(compose) })[0].(*compose)
	if !ok || len(file.Services) != 2 {
		t.Fatalf("services %+v, want 2", file)
	}
	for name, s := range file.Services {
		if len(s.EnvFile) > 0 {
			s.Environment["WEBHOOK_SECRET"] = "a secret of sixteen bytes or more"
		}
		if need := stopTime(t, s.Image, s.Environment); s.StopGracePeriod < need {
			t.Errorf("%s is killed %s after SIGTERM, and may take %s", name, s.StopGracePeriod, need)
		}
		if s.User != "65532:65532" || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s has rights that it does not need: %+v", name, s)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s listens on %s, outside of this machine", name, p)
			}
		}
		for variable, value := range s.Environment {
			_, path, isFile := strings.Cut(value, "://")
			if path, _, _ = strings.Cut(path, "?"); isFile && !slices.ContainsFunc(s.Volumes, func(v string) bool {
				return strings.HasPrefix(path, strings.Split(v, ":")[1]+"/")
			}) {
				t.Errorf("%s: %s is at %s, which is no volume", name, variable, path)
			}
		}
	}
}
