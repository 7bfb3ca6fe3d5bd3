// Calls work() for ever; prints nanoseconds per call of each round.
package main

import (
	"fmt"
	"time"
)

//go:noinline
func helper(x int) int { return x ^ 3 }

//go:noinline
func work(x int) int { return helper(x) + 1 }

//go:noinline
func checked(x int) (int, error) { return helper(x) + 1, nil }

func main() {
	const calls = 20000
	for {
		start := time.Now()
		for i := 0; i < calls; i++ {
			work(i)
			checked(i)
		}
		fmt.Printf("%.2f\n", float64(time.Since(start).Nanoseconds())/calls)
	}
}
