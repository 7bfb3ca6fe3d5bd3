// A Go library for C programs.
package main

import "C"

import (
	"fmt"
	"strings"
)

//export GoWork
func GoWork(a C.int) C.int { return C.int(len(Build(int(a)))) }

//go:noinline
func Build(a int) string {
	var b strings.Builder
	for i := 0; i < a%5; i++ {
		fmt.Fprintf(&b, "%d,", Mul(i))
	}
	return b.String()
}

//go:noinline
func Mul(a int) int {
	if a > 2 {
		return a*7 + len(fmt.Sprint(a))
	}
	return a * 3
}

func main() {}
