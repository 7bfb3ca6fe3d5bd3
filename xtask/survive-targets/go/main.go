// Go with cgo: goroutines, panics that are recovered, stacks that grow, calls of C.
package main

// static int twice(int a) { return 2 * a; }
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
)

var works, fails, failed, grows int64

//go:noinline
func Work(i int) int {
	atomic.AddInt64(&works, 1)
	return int(C.twice(C.int(i))) + 1
}

//go:noinline
func Fail(i int) int {
	atomic.AddInt64(&fails, 1)
	if i%3 == 0 {
		atomic.AddInt64(&failed, 1)
		panic(fmt.Sprint("order ", i))
	}
	return Work(i)
}

//go:noinline
func Grow(n int) int {
	atomic.AddInt64(&grows, 1)
	var room [1024]byte
	room[n] = byte(n)
	if n == 0 {
		return int(room[0])
	}
	return Grow(n-1) + int(room[n])
}

func try(i int) (sum int) {
	defer func() {
		if recover() != nil {
			sum = 7
		}
	}()
	return Fail(i)
}

func child() int {
	sum, right := 0, 0
	for i := 1; i < 9; i++ {
		sum += try(i)
		if i%3 == 0 {
			right += 7
		} else {
			right += 2*i + 1
		}
	}
	if sum == right {
		return 77
	}
	return 78
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		os.Exit(child())
	}
	fmt.Println("ready", os.Getpid())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		works, fails, failed, grows = 0, 0, 0, 0
		var sum int64
		var group sync.WaitGroup
		for g := 0; g < 8; g++ {
			group.Add(1)
			go func(g int) {
				defer group.Done()
				for i := g; i < 400; i += 8 {
					atomic.AddInt64(&sum, int64(try(i)))
				}
				atomic.AddInt64(&sum, int64(Grow(30)))
			}(g)
		}
		wrong, children := 0, 0
		if strings.HasPrefix(lines.Text(), "s") {
			children = 12 * 20
			for i := 0; i < 12; i++ {
				command := exec.Command("/proc/self/exe", "child")
				command.Run()
				if command.ProcessState == nil || command.ProcessState.ExitCode() != 77 {
					wrong++
				}
			}
		}
		group.Wait()
		fmt.Printf("{\"sum\":%d,\"calls\":{\"main.Work\":%d,\"main.Fail\":%d,\"main.Grow\":%d},\"failed\":{\"main.Fail\":%d},"+
			"\"wrong\":%d,\"children\":%d}\n", sum, works, fails, grows, failed, wrong, children)
	}
	os.Exit(48)
}
