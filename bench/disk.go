package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"
)

const (
	syncBytes = 4 << 10
	syncs     = 300
)

// disk is how long the disk takes to keep 4 KiB, which no durable answer can be faster than.
type disk struct {
	P50 float64 `json:"fdatasync_p50_us"`
	P99 float64 `json:"fdatasync_p99_us"`
}

// probeDisk appends to a file in a directory and syncs it, again and again, while nothing else is under way.
func probeDisk(ctx context.Context, dir string) (d disk, err error) {
	file, err := os.CreateTemp(dir, "sync-*")
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	block := make([]byte, syncBytes)
	took := make([]float64, 0, syncs)
	for range syncs {
		began := time.Now()
		if _, err := file.Write(block); err != nil {
			return d, err
		}
		if err := keepOnDisk(file); err != nil {
			return d, err
		}
		took = append(took, float64(time.Since(began).Microseconds()))
		if ctx.Err() != nil {
			return d, ctx.Err()
		}
	}
	slices.Sort(took)
	return disk{P50: took[len(took)/2], P99: took[len(took)*99/100]}, nil
}
