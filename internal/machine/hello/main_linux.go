// Hello is the init of a guest that only tells the host that it runs: what
// machine.Probe boots where no other init is given.
package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/internal/machine/early"
)

func main() {
	if err := hello(); err != nil {
		fmt.Println("hello:", err)
	}
	if err := early.Off(); err != nil {
		fmt.Println("power off:", err)
	}
	// A kernel whose init ends panics.
	select {}
}

// hello says which kernel runs, and waits for what the host answers.
func hello() error {
	if err := early.Mount(); err != nil {
		return err
	}
	if err := early.Load(); err != nil {
		fmt.Println("hello:", err)
	}
	port, err := early.Port(early.AgentPort, 10*time.Second)
	if err != nil {
		return err
	}
	defer port.Close()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(port, "%s%s\n", early.Hello, unix.ByteSliceToString(name.Release[:])); err != nil {
		return err
	}
	_, err = port.Read(make([]byte, 1))
	fmt.Fprintln(os.Stdout, "hello: the host has answered")
	return err
}
