package stack

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

const gibibyte = int64(1) << 30

// defaultMaxMemory is half of the RAM this process may use, shared by so many
// servers, at least 1 GiB for each. Redis needs the other half while it rewrites its
// AOF: the fork copies every page that is written meanwhile.
func defaultMaxMemory(servers int) int64 {
	ram := machineMemory()
	if limit := containerMemory(); limit > 0 && (ram == 0 || limit < ram) {
		ram = limit
	}
	return max(ram/2/int64(servers), gibibyte)
}

// machineMemory is 0 when unknown.
func machineMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kibibytes int64
		if _, err := fmt.Sscanf(line, "MemTotal: %d kB", &kibibytes); err == nil {
			return kibibytes << 10
		}
	}
	return 0
}

// containerMemory is the limit of the control group (v2); 0 when there is none.
func containerMemory() int64 {
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return 0
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil { // "max"
		return 0
	}
	return limit
}
