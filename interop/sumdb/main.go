// Sumdb checks a Deed ledger with the code that checks Go's checksum database,
// golang.org/x/mod/sumdb, and so without a line of Deed's own.
//
//	sumdb check  LOG VKEY       exit 0 if all of the log verifies, 1 if anything does not,
//	                           3 if it cannot be read
//	sumdb tamper LOG PATH...    serve the log with one byte of a resource changed
//
// LOG is the base of a C2SP tlog-tiles log, for example
// http://127.0.0.1:7733/logs/payments. The ledger's VKEY must not come from LOG, but from a
// party that the user trusts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// A log on the same machine answers in milliseconds; a request that takes longer hangs.
const requestTimeout = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: 0 is success, 1 means that something does not verify, 2 that
// the arguments are wrong, 3 that the log cannot be read.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var err error
	switch {
	case len(args) == 3 && args[0] == "check":
		var r report
		if r, err = check(ctx, newLogClient(args[1]), args[2]); err == nil {
			fmt.Fprintf(stdout, "verified: size %d, root %x, %d entries, %d tiles, %d inclusion and %d consistency proofs\n",
				r.tree.N, r.tree.Hash[:], r.entries, r.tiles, r.records, r.trees)
		}
	case len(args) >= 3 && args[0] == "tamper":
		t := &tamperer{upstream: newLogClient(args[1]), paths: args[2:], journal: stdout}
		err = serve(ctx, t, stdout)
	default:
		fmt.Fprintln(stderr, "usage: sumdb check LOG VKEY | sumdb tamper LOG PATH...")
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "sumdb:", err)
		if errors.Is(err, errUnreachable) {
			return 3
		}
		return 1
	}
	return 0
}

func newLogClient(base string) *logClient {
	return &logClient{
		base: strings.TrimSuffix(base, "/") + "/",
		http: &http.Client{Timeout: requestTimeout},
	}
}

// serve answers on a free port of 127.0.0.1, which it prints, until ctx ends.
func serve(ctx context.Context, handler http.Handler, stdout io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "listening on %s\n", listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: requestTimeout}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}
