package main

import "syscall"

func programAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setpgid:   true,           // Ctrl-C reaches bench alone, which stops them in order
		Pdeathsig: syscall.SIGINT, // and when bench is killed they stop by themselves
	}
}
