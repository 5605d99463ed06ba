package persist

import (
	"slices"
	"testing"
	"time"
)

// AuditPatience has audits that begin from now on wait less for a writer and for doors, until the test ends.
func AuditPatience(t *testing.T, d time.Duration) {
	t.Helper()
	writer, doors := auditPatience, doorPatience
	auditPatience, doorPatience = d, d
	t.Cleanup(func() { auditPatience, doorPatience = writer, doors })
}

// SampleEvery has samplers that begin from now on look in another rhythm, until the test ends.
func SampleEvery(t *testing.T, d time.Duration) {
	t.Helper()
	every := sampleEvery
	sampleEvery = d
	t.Cleanup(func() { sampleEvery = every })
}

// Pieces are what a sampler looks at in turn.
func Pieces() (names []string) {
	for _, p := range pieces {
		names = append(names, p.name)
	}
	return names
}

// AuditChecks are the names of all checks of an audit.
func AuditChecks() []string { return slices.Clone(auditChecks) }
