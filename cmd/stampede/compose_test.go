package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"
	"go.yaml.in/yaml/v3"

	"stampede/engine"
)

// composeFile is all that docker-compose.yml may say: a key that is not here is a typing mistake, or wants a test.
type composeFile struct {
	Name     string
	Common   any `yaml:"x-service"`
	Services map[string]composeService
	Volumes  map[string]any
}

type composeService struct {
	Image, User, Restart  string
	Command               []string
	Environment           map[string]string
	Ports, Volumes, Tmpfs []string
	Logging               any

	Build struct {
		Context string
		Args    map[string]string
	}
	Healthcheck struct {
		Test              []string
		Interval, Timeout time.Duration
		StartPeriod       time.Duration `yaml:"start_period"`
		Retries           int
	}
	DependsOn       map[string]struct{ Condition string } `yaml:"depends_on"`
	StopGracePeriod time.Duration                         `yaml:"stop_grace_period"`
	ReadOnly        bool                                  `yaml:"read_only"`
	CapDrop         []string                              `yaml:"cap_drop"`
	SecurityOpt     []string                              `yaml:"security_opt"`
	ShmSize         string                                `yaml:"shm_size"`
}

// fromTop reads a file of the top level.
func fromTop(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	var file composeFile
	decoder := yaml.NewDecoder(strings.NewReader(fromTop(t, "docker-compose.yml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"redis", "postgres", "stampede"} {
		if _, there := file.Services[name]; !there {
			t.Fatalf("there is no service %s", name)
		}
	}
	return file
}

var (
	// demanded is a variable without which Compose starts nothing, and says why.
	demanded = regexp.MustCompile(`\$\{(\w+):\?[^}]+\}`)
	// interpolated is what Compose replaces, or would: "$$" stands for a dollar.
	interpolated = regexp.MustCompile(`\$\$|\$\{(\w+)(:[?-])?([^}]*)\}|\$`)
)

// interpolate gives every demanded variable a value made from its name, and the others their default.
func interpolate(t *testing.T, text string) string {
	t.Helper()
	return interpolated.ReplaceAllStringFunc(text, func(found string) string {
		part := interpolated.FindStringSubmatch(found)
		switch {
		case found == "$$":
			return "$"
		case demanded.MatchString(found):
			return strings.ReplaceAll(part[1], "_", "") // which a Bearer token may not have
		case part[2] == ":-":
			return part[3]
		}
		t.Errorf("%q in %q: write ${NAME:?message}, or $$ for a dollar", found, text)
		return ""
	})
}

// value is what a variable of the service holds inside.
func (s composeService) value(t *testing.T, name string) string {
	t.Helper()
	return interpolate(t, s.Environment[name])
}

func TestCompose_HoldsNoSecret(t *testing.T) {
	t.Parallel()
	secret := regexp.MustCompile(`(?i)(?:\w*(?:pass|secret|token|_auth)\w*(?:: *|=)|requirepass )"?([^"\s]*)|://[^/@\s]*:([^/@\s]*)@`)
	for line := range strings.Lines(fromTop(t, "docker-compose.yml")) {
		line = regexp.MustCompile(`(^|\s)#.*`).ReplaceAllString(line, "")
		if strings.Contains(line, "://") && strings.Contains(line, "${") && !strings.Contains(line, "URL}") {
			t.Errorf("a message does not say that the password becomes part of a URL: %s", line)
		}
		for _, found := range secret.FindAllStringSubmatch(demanded.ReplaceAllString(line, "$$$$demanded"), -1) {
			if !strings.HasPrefix(found[1]+found[2], "$$") {
				t.Errorf("a secret that is not ${VARIABLE:?message}: %s", line)
			}
		}
	}
}

// The arguments of a process can be seen from outside, and docker ps prints them.
func TestCompose_PutsNoSecretOnACommandLine(t *testing.T) {
	t.Parallel()
	flag := regexp.MustCompile(`--(requirepass|pass|admin-token|redis-url|postgres-url)`)
	for name, service := range readCompose(t).Services {
		for _, arg := range slices.Concat(service.Command, service.Healthcheck.Test) {
			if flag.MatchString(arg) || strings.Contains(strings.ReplaceAll(arg, "$$", ""), "$") {
				t.Errorf("%s: a secret would stand among the arguments: %q", name, arg)
			}
		}
	}
}

func TestCompose_PublishesOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	for name, service := range readCompose(t).Services {
		for _, port := range service.Ports {
			if name != "stampede" || !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s publishes %s: only the API has to be reached, and from this machine", name, port)
			}
		}
	}
}

// serveModel is what main makes of the command line of `stampede serve`.
func serveModel(t *testing.T, c *commands) (*kong.Kong, *kong.Node) {
	t.Helper()
	parser, err := kong.New(c, kong.Name("stampede"), kong.DefaultEnvars("STAMPEDE"))
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(parser.Model.Children, func(n *kong.Node) bool { return n.Name == "serve" })
	return parser, parser.Model.Children[at]
}

func TestCompose_UsesFlagsAndVariablesThatServeHas(t *testing.T) {
	t.Parallel()
	_, serve := serveModel(t, &commands{})
	has := map[string]bool{"serve": true}
	for _, flag := range serve.Flags {
		has["--"+flag.Name] = true
		for _, variable := range flag.Envs {
			has[variable] = true
		}
	}
	stampede := readCompose(t).Services["stampede"]
	for _, arg := range stampede.Command {
		if flag, _, _ := strings.Cut(arg, "="); !has[flag] {
			t.Errorf("serve has no %s", flag)
		}
	}
	for name := range stampede.Environment {
		if !has[name] {
			t.Errorf("serve has no variable %s", name)
		}
	}
}

// parseServe has `stampede serve` read its command line and its variables.
func parseServe(t *testing.T) (serveCommand, composeService) {
	t.Helper()
	stampede := readCompose(t).Services["stampede"]
	for name := range stampede.Environment {
		t.Setenv(name, stampede.value(t, name))
	}
	var c commands
	parser, _ := serveModel(t, &c)
	if _, err := parser.Parse(stampede.Command); err != nil {
		t.Fatal(err)
	}
	return c.Serve, stampede
}

func TestCompose_StartsAServeThatTakesItsSettings(t *testing.T) {
	serve, stampede := parseServe(t)
	if err := serve.validate(); err != nil {
		t.Error(err)
	}
	host, port, _ := strings.Cut(serve.Addr, ":")
	if host != "0.0.0.0" || len(stampede.Ports) != 1 || !strings.HasSuffix(stampede.Ports[0], ":"+port) {
		t.Errorf("it listens on %s, which %v does not reach", serve.Addr, stampede.Ports)
	}
	listener, err := listen(host+":0", serve.Auth)
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
}

func TestCompose_TheURLsNameTheServersAndTheirPasswords(t *testing.T) {
	serve, _ := parseServe(t)
	services := readCompose(t).Services
	postgres := services["postgres"]
	made := url.URL{
		Scheme: "postgres", Host: "postgres:5432", Path: postgres.value(t, "POSTGRES_DB"), RawQuery: "sslmode=disable",
		User: url.UserPassword(postgres.value(t, "POSTGRES_USER"), postgres.value(t, "POSTGRES_PASSWORD")),
	}
	if serve.PostgresURL != made.String() {
		t.Errorf("serve looks for %s, the service is %s", serve.PostgresURL, &made)
	}
	if made := "redis://default:" + services["redis"].value(t, "REDISCLI_AUTH") + "@redis:6379/0"; serve.RedisURL != made {
		t.Errorf("serve looks for %s, the service is %s", serve.RedisURL, made)
	}
}

// runRedis runs the service's command as it stands, but for the directory and the port, and returns a client.
func runRedis(t *testing.T, service composeService) redis.UniversalClient {
	t.Helper()
	dir, err := os.MkdirTemp("", "compose-redis-*") // not t.TempDir: the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	here := fmt.Sprintf("dir %s\nport 0\nunixsocket %s/sock\n", dir, dir)
	var command []string
	for _, arg := range service.Command {
		command = append(command, strings.Replace(interpolate(t, arg), "dir /data\n", here, 1))
	}
	if !strings.Contains(strings.Join(command, " "), here) {
		t.Fatalf("the data of Redis do not lie in /data: %q", service.Command)
	}
	password := service.value(t, "REDISCLI_AUTH")
	var log transcript
	server := exec.Command(command[0], command[1:]...)
	server.Env = []string{"PATH=" + os.Getenv("PATH"), "REDISCLI_AUTH=" + password}
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	client, err := engine.Connect(engine.Redis{URL: "unix://default:" + password + "@" + dir + "/sock"}, 1, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	for deadline := time.Now().Add(patience); client.Ping(within(t)).Err() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Redis does not let us in: %v\n%s", client.Ping(within(t)).Err(), &log)
		}
	}
	return client
}

func TestCompose_RedisRunsWithTheDefaultDurability(t *testing.T) {
	t.Parallel()
	client := runRedis(t, readCompose(t).Services["redis"])
	for name, want := range map[string]string{
		"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no", "aof-load-truncated": "yes",
		"save": "", "maxmemory-policy": "noeviction",
	} {
		if got, err := client.ConfigGet(within(t), name).Result(); err != nil || got[name] != want {
			t.Errorf("%s is %q, want %q (%v)", name, got[name], want, err)
		}
	}
	if engine.Memory(within(t), client) == 0 {
		t.Error("Redis has no maxmemory: it would take all of the machine's")
	}
	if open := client.Do(within(t), "ACL", "GETUSER", "default").String(); strings.Contains(open, "nopass") {
		t.Error("Redis wants no password")
	}
}

func TestCompose_KeepsDataInDeclaredVolumes(t *testing.T) {
	t.Parallel()
	file := readCompose(t)
	used := map[string]any{}
	for name, service := range file.Services {
		for _, volume := range service.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			used[source] = nil
			if _, declared := file.Volumes[source]; !declared {
				t.Errorf("%s uses the volume %s, which is not declared", name, source)
			}
		}
	}
	if len(used) != len(file.Volumes) {
		t.Errorf("volumes used: %v, declared: %v", used, file.Volumes)
	}
	for name, volume := range map[string]string{"redis": "redis:/data", "postgres": "postgres:/var/lib/postgresql/data"} {
		if service := file.Services[name]; !slices.Equal(service.Volumes, []string{volume}) {
			t.Errorf("%s has %v, but its image keeps the data where %s is", name, service.Volumes, volume)
		}
	}
}

// PostgreSQL 18 moved its directory: see the volumes.
func TestCompose_PinsItsImages(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`^(redis:7\.\d+|postgres:1[4-7])(\.\d+)?-\w+$`)
	for name, service := range readCompose(t).Services {
		if service.Build.Context == "" && !pinned.MatchString(service.Image) {
			t.Errorf("%s runs %q", name, service.Image)
		}
	}
}

func TestCompose_RunsWithoutPrivileges(t *testing.T) {
	t.Parallel()
	for name, s := range readCompose(t).Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: read_only %t, cap_drop %v, security_opt %v", name, s.ReadOnly, s.CapDrop, s.SecurityOpt)
		}
		if s.Build.Context == "" && s.User != name {
			t.Errorf("%s runs as %q, not as the user %s of its image", name, s.User, name)
		}
	}
}

func TestCompose_EveryServiceIsWatchedAndStartedAgain(t *testing.T) {
	t.Parallel()
	for name, service := range readCompose(t).Services {
		check := service.Healthcheck
		if len(check.Test) < 2 || check.Interval == 0 || check.Timeout == 0 || check.StartPeriod == 0 || check.Retries == 0 {
			t.Errorf("%s: the health check is not whole: %+v", name, check)
		}
		if service.Restart != "unless-stopped" {
			t.Errorf("%s: restart is %q", name, service.Restart)
		}
	}
}

func TestCompose_StampedeWaitsForServersThatAreWell(t *testing.T) {
	t.Parallel()
	file := readCompose(t)
	for name, service := range file.Services {
		for other, on := range service.DependsOn {
			if _, there := file.Services[other]; !there || on.Condition != "service_healthy" {
				t.Errorf("%s waits for %s: %q", name, other, on.Condition)
			}
		}
	}
	if waits := file.Services["stampede"].DependsOn; len(waits) != len(file.Services)-1 {
		t.Errorf("stampede waits only for %v", waits)
	}
}

// A process that waits for Redis is not ready, and to restart it would not help.
func TestCompose_AsksWhetherStampedeLivesNotWhetherAllIsWell(t *testing.T) {
	serve, stampede := parseServe(t)
	_, port, _ := strings.Cut(serve.Addr, ":")
	check := strings.Join(stampede.Healthcheck.Test, " ")
	if !strings.HasPrefix(check, "CMD wget ") || !strings.HasSuffix(check, " http://127.0.0.1:"+port+"/healthz") ||
		strings.Contains(check, "--spider") { // asks HEAD, which is 405
		t.Errorf("the health check is %q, want a GET of /healthz on port %s", check, port)
	}
}

func TestCompose_LetsStampedeStopInOrder(t *testing.T) {
	t.Parallel()
	bound := drainMax + closeMax
	if grace := readCompose(t).Services["stampede"].StopGracePeriod; grace <= bound {
		t.Errorf("it is killed after %s, but may take %s", grace, bound)
	}
}

func TestCompose_ItsVariablesStandInTheReadme(t *testing.T) {
	t.Parallel()
	readme := fromTop(t, "README.md")
	for _, variable := range demanded.FindAllStringSubmatch(fromTop(t, "docker-compose.yml"), -1) {
		if !strings.Contains(readme, variable[1]) {
			t.Errorf("README.md does not say what %s is", variable[1])
		}
	}
}
