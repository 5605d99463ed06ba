package main

import "syscall"

// programAttr has Ctrl-C reach bench alone, which stops the programs in order. If bench is killed they go on running:
// this system does not signal the death of a parent.
func programAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
