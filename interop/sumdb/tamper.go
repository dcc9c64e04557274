package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// tamperer passes a log on and changes one byte of one of its resources.
//
// Under `/<n>/` it serves the log of upstream with the n-th path changed; under `/honest/` it
// serves the log as it is, which shows that the tampering alone makes a checker fail. Each time
// that a change is served, a line `changed <n> <path>` is written to journal first, so that a
// checker that never read the resource does not pass for one that noticed the change.
type tamperer struct {
	upstream *logClient
	paths    []string

	journalLock sync.Mutex
	journal     io.Writer
}

func (t *tamperer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	scope, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	which, err := strconv.Atoi(scope)
	if scope == "honest" {
		which = -1
	} else if err != nil || which < 0 || which >= len(t.paths) {
		http.NotFound(w, r)
		return
	}
	body, err := t.upstream.fetch(r.Context(), path)
	if err == nil && which >= 0 && path == t.paths[which] {
		if body, err = changeByte(path, body); err == nil {
			t.journalLock.Lock()
			_, err = fmt.Fprintf(t.journal, "changed %d %s\n", which, path)
			t.journalLock.Unlock()
		}
	}
	switch {
	case errors.Is(err, errNotFound):
		http.NotFound(w, r)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	default:
		w.Write(body) // an error means that the reader has gone
	}
}

// changeByte returns body with one byte changed, so that the form stays right and only the
// content is wrong: the first character of a checkpoint's root, or the last bit of the last hash
// or entry.
func changeByte(path string, body []byte) ([]byte, error) {
	if len(body) == 0 {
		return nil, fmt.Errorf("%s: nothing to change", path)
	}
	body = bytes.Clone(body)
	if path != "checkpoint" {
		body[len(body)-1] ^= 1
		return body, nil
	}
	lines := bytes.SplitN(body, []byte("\n"), 4)
	if len(lines) != 4 || len(lines[2]) == 0 {
		return nil, errors.New("checkpoint: no root to change")
	}
	root := lines[2] // a part of body
	if root[0] == 'A' {
		root[0] = 'B'
	} else {
		root[0] = 'A'
	}
	return body, nil
}
