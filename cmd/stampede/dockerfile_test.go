package main

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// readDockerfile returns the instructions of each stage, which begins with FROM; what stands before the first is 0.
func readDockerfile(t *testing.T) [][]string {
	t.Helper()
	text := regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(fromTop(t, "Dockerfile"), "")
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
	stages := [][]string{nil}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "FROM ") {
			stages = append(stages, nil)
		}
		if line = strings.TrimSpace(line); line != "" {
			stages[len(stages)-1] = append(stages[len(stages)-1], line)
		}
	}
	if len(stages) != 3 {
		t.Fatalf("want a stage that builds and one that runs: %q", stages)
	}
	return stages
}

// wantLines fails for each pattern that no whole instruction of the stage matches.
func wantLines(t *testing.T, stage []string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if !slices.ContainsFunc(stage, regexp.MustCompile("^(?:"+pattern+")$").MatchString) {
			t.Errorf("nothing like\n%s\nin\n%s", pattern, strings.Join(stage, "\n"))
		}
	}
}

func TestDockerfile_BuildsWithTheGoOfGoMod(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`(?m)^go (.+)$`).FindStringSubmatch(fromTop(t, "go.mod"))
	if line == nil {
		t.Fatal("go.mod names no version of Go")
	}
	stages := readDockerfile(t)
	wantLines(t, stages[0], "ARG GO_VERSION="+regexp.QuoteMeta(line[1]))
	wantLines(t, stages[1][:1], `FROM golang:\$\{GO_VERSION\}-alpine AS build`)
}

func TestDockerfile_BuildsAsTheMakefileDoes(t *testing.T) {
	t.Parallel()
	makefile := fromTop(t, "Makefile")
	stamp := regexp.MustCompile(`(?m)^LDFLAGS = (.*)$`).FindStringSubmatch(makefile)
	recipe := regexp.MustCompile(`(?m)^\t(.*go build .*)$`).FindStringSubmatch(makefile)
	if stamp == nil || recipe == nil {
		t.Fatal("the Makefile has no LDFLAGS, or no recipe that builds")
	}
	ofMake := regexp.MustCompile(`\$\((\w+)\)`)
	flags := `"` + ofMake.ReplaceAllString(stamp[1], "$${$1}") + `"`
	run := strings.NewReplacer("'$(LDFLAGS)'", flags, "bin/stampede", "/stampede").Replace("RUN " + recipe[1])
	build := readDockerfile(t)[1]
	wantLines(t, build, regexp.QuoteMeta(run))
	args := readCompose(t).Services["stampede"].Build.Args
	for _, variable := range ofMake.FindAllStringSubmatch(stamp[1], -1) {
		wantLines(t, build, "ARG "+variable[1]+"=.+")
		if !strings.HasPrefix(args[variable[1]], "${"+variable[1]+":-") {
			t.Errorf("Compose does not hand on %s: %v", variable[1], args)
		}
	}
}

func TestDockerfile_TheImageIsPinnedSmallWithoutRootAndCanCheckItself(t *testing.T) {
	t.Parallel()
	image := readDockerfile(t)[2]
	wantLines(t, image[:1], `FROM alpine:3\.\d+(\.\d+)?`) // has wget, for the health check
	wantLines(t, image, "COPY --from=build /stampede /usr/local/bin/stampede", `ENTRYPOINT \["stampede"\]`, `USER [1-9]\d*:[1-9]\d*`)
}

// Whatever else lies beside the source stays outside: data, secrets, history.
func TestDockerignore_LetsInWhatTheBuildNeedsAndNothingElse(t *testing.T) {
	t.Parallel()
	const ours = "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}"
	list, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", ours, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	needed := []string{"!/go.mod", "!/go.sum"}
	for path := range strings.FieldsSeq(string(list)) {
		needed = append(needed, "!/"+strings.Split(path, "/")[1])
	}
	slices.Sort(needed)
	ignore := fromTop(t, ".dockerignore")
	allowed := regexp.MustCompile(`(?m)^!.*$`).FindAllString(ignore, -1)
	slices.Sort(allowed)
	if needed = slices.Compact(needed); !slices.Equal(allowed, needed) {
		t.Errorf("let in: %v, needed: %v", allowed, needed)
	}
	if !regexp.MustCompile(`\A(#.*\n)*\*\n`).MatchString(ignore) {
		t.Error("the first pattern is not *, which keeps out what is not let in")
	}
}
