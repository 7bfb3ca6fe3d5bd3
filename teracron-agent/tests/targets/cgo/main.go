// A Go program with C in it: the C linker puts it together, its own code first.
package main

// static int twice(int a) { return 2 * a; }
import "C"

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
)

//go:noinline
func Work(i int) int { return int(C.twice(C.int(i))) + 1 }

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

//go:noinline
func Fails(a int) {
	if a%10 == 0 {
		panic(errors.New("tenth"))
	}
}

//go:noinline
func Recovers(a int) {
	defer func() { _ = recover() }()
	Fails(a)
}

func main() {
	in := bufio.NewReader(os.Stdin)
	fmt.Println("ready", os.Getpid())
	in.ReadString('\n')
	sum := 0
	for i := 0; i < 500; i++ {
		sum += Work(i) + len(Build(i))
		Recovers(i)
	}
	fmt.Println(sum)
	fmt.Println("done")
	in.ReadString('\n')
	os.Exit(6)
}
