// A Go program that writes down which calls it made and how they ended, goroutine by goroutine, in the
// protocol of log.h: "ready" -> "go" -> log lines, "done" -> end of file.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

// A goroutine's log.
type journal struct {
	lines  []string
	number int64
}

var goroutines atomic.Int64

func newJournal() *journal { return &journal{number: goroutines.Add(1)} }

func (j *journal) begin(name string) { j.lines = append(j.lines, fmt.Sprintf("B %d %s", j.number, name)) }
func (j *journal) end(how string)    { j.lines = append(j.lines, fmt.Sprintf("E %d %s", j.number, how)) }
func (j *journal) ok()               { j.end("succeeded") }

func (j *journal) result(err error) {
	switch e := err.(type) {
	case nil:
		j.ok()
	case *fs.PathError:
		j.end("failed *fs.PathError")
	case *Declined, *Broken:
		// Their methods make a text: no string of theirs is it.
		j.end(fmt.Sprintf("failed %T", e))
	default:
		j.end(fmt.Sprintf("failed %T|%s", e, e))
	}
}

// A type of the program's own, with a text of its own.
type Declined struct {
	code int
	msg  string
}

func (d *Declined) Error() string { return "declined: " + d.msg }

// A type whose text has nothing of its only string: nobody asked for that.
type Broken struct {
	code   int
	secret string
}

func (b *Broken) Error() string { return fmt.Sprint("broken ", b.code) }

// Types whose text is their string.
type Plain struct {
	code int
	msg  string
}

func (p *Plain) Error() string { return p.msg }

type ByValue struct {
	code int
	msg  string
}

func (v ByValue) Error() string { return v.msg }

// A string by another name.
type Text string

func (t Text) Error() string { return string(t) }

type Server struct {
	name  string
	calls int
}

type Order struct {
	ID    int64
	Name  string
	Items []int
	Next  *Order
}

//go:noinline
func (s *Server) handle(j *journal, o *Order, n int) (int, error) {
	s.calls++
	switch n % 9 {
	case 1:
		return 0, errors.New(fmt.Sprint("number ", n))
	case 2:
		return 0, fmt.Errorf("number %d: %w", n, os.ErrNotExist)
	case 3:
		return 0, &fs.PathError{Op: "open", Path: "/x", Err: fs.ErrNotExist}
	case 4:
		return 0, &Declined{n, "own"}
	case 5:
		return 0, Text("a text")
	case 6:
		return 0, &Broken{n, "canary"}
	case 7:
		return 0, &Plain{n, "plain"}
	case 8:
		return 0, ByValue{n, "by value"}
	}
	j.begin("main.leaf")
	l := leaf(n)
	j.ok()
	return l + len(o.Name), nil
}

//go:noinline
func leaf(n int) int { return n*3 + 1 }

// Grows the stack: each frame takes two kilobytes.
//
//go:noinline
func deep(j *journal, n, d int) int {
	var buf [2048]byte
	buf[n&2047] = byte(d)
	if d == 0 {
		runtime.Gosched()
		return int(buf[(n+1)&2047])
	}
	j.begin("main.deep")
	r := deep(j, n, d-1)
	j.ok()
	return r + int(buf[n&2047])
}

//go:noinline
func thrower(n int) int {
	switch n % 4 {
	case 1:
		panic(fmt.Sprint("boom ", n))
	case 2:
		panic(errors.New("thrown"))
	case 3:
		panic(n)
	}
	return n
}

func thrown(n int) string {
	return []string{"", fmt.Sprintf("failed string|boom %d", n), "failed *errors.errorString|thrown", "failed int"}[n%4]
}

//go:noinline
func between(j *journal, n int) int {
	j.begin("main.thrower")
	r := thrower(n)
	j.ok()
	return r + 1
}

// Recovers what leaves the two frames below.
//
//go:noinline
func catcher(j *journal, n int) (r int) {
	defer func() {
		if x := recover(); x != nil {
			j.end(thrown(n))
			j.end(thrown(n))
			r = -1
		}
	}()
	j.begin("main.between")
	r = between(j, n)
	j.ok()
	return r
}

// After a recovered panic, a function that is called as deep as those that are gone.
//
//go:noinline
func afterwards(j *journal, n int) int {
	j.begin("main.catcher")
	r := catcher(j, n)
	j.ok()
	return r + untraced(j, n)
}

//go:noinline
func untraced(j *journal, n int) int {
	j.begin("main.leaf")
	r := leaf(n)
	j.ok()
	return r
}

// A deferred function that panics and recovers itself, while another panic is on its way.
//
//go:noinline
func nested(j *journal, n int) (r int) {
	defer func() {
		recover()
		j.end("failed string|outer")
		r = 1
	}()
	j.begin("main.outer")
	outer(j, n)
	return 0
}

//go:noinline
func outer(j *journal, n int) {
	defer func() {
		j.begin("main.catcher")
		catcher(j, n*4+1)
		j.ok()
	}()
	panic("outer")
}

//go:noinline
func leaves(j *journal, n int) {
	j.begin("main.exits")
	exits(n)
}

//go:noinline
func exits(n int) {
	if n >= 0 {
		runtime.Goexit()
	}
}

//go:noinline
func Process[T any](x T, n int) T {
	if n < 0 {
		fmt.Println(x)
	}
	return x
}

//go:noinline
func adder(s *Server) func(int) int {
	return func(i int) int { return i + s.calls }
}

func work(journals chan<- *journal, rounds int) {
	j := newJournal()
	defer func() { journals <- j }()
	s := &Server{name: "s"}
	o := &Order{ID: 7, Name: "ord", Items: []int{1, 2, 3}}
	closure := adder(s)
	for n := 0; n < rounds; n++ {
		j.begin("main.(*Server).handle")
		_, err := s.handle(j, o, n)
		j.result(err)
		j.begin("main.afterwards")
		afterwards(j, n)
		j.ok()
		j.begin("main.nested")
		nested(j, n)
		j.ok()
		j.begin("main.Process[...]")
		Process(n, n)
		j.ok()
		j.begin("main.Process[...]")
		Process("x", n)
		j.ok()
		j.begin("main.adder.func1")
		closure(n)
		j.ok()
		// Another goroutine, whose stack is small: it has to grow.
		done := make(chan *journal)
		go func() {
			j := newJournal()
			j.begin("main.deep")
			deep(j, n, 12)
			j.ok()
			done <- j
		}()
		journals <- <-done
		go func() {
			j := newJournal()
			defer func() {
				j.end("failed runtime.Goexit")
				j.end("failed runtime.Goexit")
				done <- j
			}()
			j.begin("main.leaves")
			leaves(j, n)
		}()
		journals <- <-done
	}
}

//go:noinline
func hang(ready chan<- bool) {
	ready <- true
	select {}
}

// Calls that goroutines make, each with the name of the function that started the goroutine, or that called.
type starts struct {
	mutex sync.Mutex
	lines []string
	group sync.WaitGroup
}

func (s *starts) note(name string, n int, parent string) {
	s.mutex.Lock()
	s.lines = append(s.lines, fmt.Sprintf("%s %d %s", name, n, parent))
	s.mutex.Unlock()
}

// Its probe wants the goroutines that are started in it.
//
//go:noinline
func request(s *starts, n int) {
	s.note("main.request", n, "-")
	s.note("main.spawned", n, "main.request")
	s.group.Add(3)
	go spawned(s, n)
	go relay(s, n)
	inner(s, n)
}

// A traced function between the request and the goroutine.
//
//go:noinline
func inner(s *starts, n int) int {
	s.note("main.inner", n, "main.request")
	s.note("main.spawned", n, "main.inner")
	go spawned(s, n)
	return n
}

// Not traced: what it starts belongs where it belongs itself.
//
//go:noinline
func relay(s *starts, n int) {
	s.note("main.spawned", n, "main.request")
	go spawned(s, n)
}

//go:noinline
func spawned(s *starts, n int) {
	defer s.group.Done()
	deepening(n, 8)
}

// Grows the stack, so that it is copied while the goroutine's origin is remembered.
//
//go:noinline
func deepening(n, d int) int {
	var buf [1024]byte
	if d == 0 {
		return n
	}
	buf[n&1023] = byte(d)
	return deepening(n, d-1) + int(buf[n&1023])
}

// Its probe wants none.
//
//go:noinline
func alone(s *starts, n int) int {
	s.note("main.alone", n, "-")
	s.note("main.spawned", n, "-")
	s.group.Add(1)
	go spawned(s, n)
	return n
}

func spawn() {
	runtime.GOMAXPROCS(4)
	fmt.Printf("ready %d\n", os.Getpid())
	input := bufio.NewReader(os.Stdin)
	input.ReadString('\n')
	s := &starts{}
	rounds := 300
	if len(os.Args) > 2 {
		fmt.Sscan(os.Args[2], &rounds)
	}
	var group sync.WaitGroup
	for w := 0; w < 4; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := 0; n < rounds; n++ {
				request(s, n*4+w)
				alone(s, n*4+w)
				if n%50 == 0 {
					runtime.GC()
				}
			}
		}()
	}
	group.Wait()
	s.group.Wait()
	out := bufio.NewWriter(os.Stdout)
	for _, line := range s.lines {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintln(out, "done")
	out.Flush()
	input.ReadString('\n')
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "spawn" {
		spawn()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "abandon" {
		fmt.Printf("ready %d\n", os.Getpid())
		bufio.NewReader(os.Stdin).ReadString('\n')
		ready := make(chan bool)
		go hang(ready)
		<-ready
		fmt.Println("done")
		return
	}
	workers, rounds := 4, 12
	if len(os.Args) > 2 {
		fmt.Sscan(os.Args[1], &workers)
		fmt.Sscan(os.Args[2], &rounds)
	}
	runtime.GOMAXPROCS(4)
	fmt.Printf("ready %d\n", os.Getpid())
	input := bufio.NewReader(os.Stdin)
	input.ReadString('\n')
	stop := make(chan bool)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	journals := make(chan *journal, 1024)
	var all []*journal
	gathered := make(chan bool)
	go func() {
		for j := range journals {
			all = append(all, j)
		}
		gathered <- true
	}()
	var group sync.WaitGroup
	for w := 0; w < workers; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			work(journals, rounds)
		}()
	}
	group.Wait()
	close(stop)
	close(journals)
	<-gathered
	out := bufio.NewWriter(os.Stdout)
	for _, j := range all {
		for _, line := range j.lines {
			fmt.Fprintln(out, line)
		}
	}
	fmt.Fprintln(out, "done")
	out.Flush()
	input.ReadString('\n')
}
