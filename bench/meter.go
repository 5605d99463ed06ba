package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The programs whose CPU time is told apart.
const (
	programStampede  = "stampede"
	programRedis     = "redis"
	programPostgres  = "postgres"
	programEmpty     = "empty_handler"
	programEvalsha   = "evalsha_server"
	programRowLocks  = "postgres_server"
	programGenerator = "generator"
	programOthers    = "others" // whatever else ran on the machine, the kernel's own threads included
)

// programs are all of them, in the order in which they are told.
var programs = []string{
	programStampede, programEvalsha, programRowLocks, programRedis, programPostgres, programEmpty, programGenerator, programOthers,
}

// readable is how a table names a program; JSON has it as it is.
func readable(program string) string { return strings.ReplaceAll(program, "_", " ") }

// tick is the unit of CPU times in /proc: USER_HZ is 100 on every architecture that Go runs on.
const tick = time.Second / 100

// usage is CPU time by program.
type usage map[string]time.Duration

// errNoProc says that the system does not show CPU times as Linux does.
var errNoProc = errors.New("CPU time by program is read from /proc, which this system does not have: run this benchmark on Linux")

// meter reads CPU times from /proc; the zero one reads none. A program is its processes and all that descend from them.
type meter struct {
	proc  string         // the mount point; tests have their own
	roots map[int]string // programs by pid
}

// newMeter tells the given programs apart, and the servers that those under load have started. It holds on to their processes:
// one that is started anew in the middle would hand the time of the old one to its parent.
func newMeter(proc string, roots map[int]string) (meter, error) {
	if _, err := os.Stat(filepath.Join(proc, "stat")); errors.Is(err, os.ErrNotExist) {
		return meter{}, errNoProc
	}
	m := meter{proc: proc, roots: maps.Clone(roots)}
	processes, err := m.processes()
	if err != nil {
		return m, err
	}
	servers := map[string]string{"redis-server": programRedis, "valkey-server": programRedis, "postgres": programPostgres}
	for pid, p := range processes {
		parent := roots[p.parent]
		if program, ok := servers[p.name]; ok && parent != "" && parent != programGenerator {
			m.roots[pid] = program
		}
	}
	return m, nil
}

// process is a line of /proc/<pid>/stat.
type process struct {
	parent int
	name   string
	cpu    time.Duration // own, and that of children which have ended
}

func (m meter) processes() (map[int]process, error) {
	paths, err := filepath.Glob(filepath.Join(m.proc, "[0-9]*", "stat"))
	if err != nil {
		return nil, err
	}
	processes := make(map[int]process, len(paths))
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		if processes[pid], err = parseProcess(text); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return processes, nil
}

// read returns the CPU time that every program has used since it began. That of children which have ended is counted
// with their parents, so nothing is lost when a backend of PostgreSQL comes and goes between two readings.
func (m meter) read() (usage, error) {
	if m.proc == "" {
		return usage{}, nil
	}
	processes, err := m.processes()
	if err != nil {
		return nil, err
	}
	for pid, program := range m.roots {
		if _, alive := processes[pid]; !alive {
			return nil, fmt.Errorf("%s (process %d) has ended", program, pid)
		}
	}
	machine, err := os.ReadFile(filepath.Join(m.proc, "stat"))
	if err != nil {
		return nil, err
	}
	busy, err := parseBusy(machine)
	if err != nil {
		return nil, err
	}
	used := usage{programOthers: busy}
	for pid, p := range processes {
		if program := m.program(processes, pid); program != "" {
			used[program] += p.cpu
			used[programOthers] -= p.cpu
		}
	}
	return used, nil
}

// program tells to which program a process belongs, by its nearest ancestor that is known; none is "".
func (m meter) program(processes map[int]process, pid int) string {
	for {
		if program, ok := m.roots[pid]; ok {
			return program
		}
		p, ok := processes[pid]
		if !ok {
			return ""
		}
		pid = p.parent
	}
}

// since subtracts an earlier reading.
func (u usage) since(before usage) usage {
	spent := maps.Clone(u)
	for program, cpu := range before {
		spent[program] -= cpu
	}
	// The machine's total is sampled, the processes' times are measured: their difference may fall below zero.
	spent[programOthers] = max(0, spent[programOthers])
	return spent
}

// underLoad is what the measured server used, with those behind it.
func (u usage) underLoad() time.Duration {
	sum := time.Duration(0)
	for program, cpu := range u {
		if program != programGenerator && program != programOthers {
			sum += cpu
		}
	}
	return sum
}

// parseProcess reads parent (4), utime, stime, cutime and cstime (14 to 17) of proc_pid_stat(5).
func parseProcess(stat []byte) (process, error) {
	// The name in parentheses may hold spaces and parentheses: the last one ends it.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, errors.New("no process name")
	}
	const first = 3 // number of the field behind the name
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) <= 17-first {
		return process{}, errors.New("too few fields")
	}
	parent, err := strconv.Atoi(fields[4-first])
	if err != nil {
		return process{}, err
	}
	cpu, err := sumTicks(fields[14-first : 18-first])
	return process{parent: parent, name: string(stat[open+1 : end]), cpu: cpu}, err
}

// parseBusy adds up what the machine's processors were used for, by the first line of proc_stat(5): user, nice,
// system, irq, softirq and what the hypervisor took; not idle and iowait.
func parseBusy(stat []byte) (time.Duration, error) {
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("not the times of all processors: %q", line)
	}
	return sumTicks(append(fields[1:4:4], fields[6:9]...))
}

func sumTicks(fields []string) (time.Duration, error) {
	var sum time.Duration
	for _, field := range fields {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
