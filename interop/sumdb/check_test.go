package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "ledger.example/logs/fixture"

// Three tile levels, and a partial tile at each: 65,536 + 2 * 256 + 17.
const fixtureSize = 66065

// fixture is a log that x/mod's own code has made: its resources by path.
type fixture struct {
	resources map[string][]byte
	vkey      string
	signer    note.Signer
	tree      tlog.Tree
}

func newFixture(t *testing.T, size int64) *fixture {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{resources: make(map[string][]byte), vkey: vkey, signer: signer}
	var store hashStore
	bundles := make(map[int64][]byte)
	for i := range size {
		entry := fmt.Appendf(nil, "entry %d", i)
		hashes, err := tlog.StoredHashes(i, entry, store)
		if err != nil {
			t.Fatal(err)
		}
		store = append(store, hashes...)
		bundle := binary.BigEndian.AppendUint16(bundles[i/tileWidth], uint16(len(entry)))
		bundles[i/tileWidth] = append(bundle, entry...)
	}
	for _, tile := range tlog.NewTiles(tileHeight, 0, size) {
		data, err := tlog.ReadTileData(tile, store)
		if err != nil {
			t.Fatal(err)
		}
		f.resources[c2spPath(tile)] = data
		if tile.L == 0 {
			tile.L = -1
			f.resources[c2spPath(tile)] = bundles[tile.N]
		}
	}
	root, err := tlog.TreeHash(size, store)
	if err != nil {
		t.Fatal(err)
	}
	f.tree = tlog.Tree{N: size, Hash: root}
	f.sign(t, fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:])))
	return f
}

// sign makes text the log's checkpoint.
func (f *fixture) sign(t *testing.T, text string) {
	t.Helper()
	checkpoint, err := note.Sign(&note.Note{Text: text}, f.signer)
	if err != nil {
		t.Fatal(err)
	}
	f.resources["checkpoint"] = checkpoint
}

func (f *fixture) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if body, ok := f.resources[strings.TrimPrefix(r.URL.Path, "/log/")]; ok {
		w.Write(body)
		return
	}
	http.NotFound(w, r)
}

func (f *fixture) start(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server.URL + "/log"
}

func TestHonestLogsAreAccepted(t *testing.T) {
	for _, size := range []int64{1, 2, 255, 256, 257, 511, 512, 65536, fixtureSize} {
		f := newFixture(t, size)
		r, err := check(context.Background(), newLogClient(f.start(t)), f.vkey)
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if r.tree != f.tree || r.entries != size || r.records == 0 || r.trees == 0 {
			t.Errorf("size %d: %+v", size, r)
		}
		if want := len(tlog.NewTiles(tileHeight, 0, size)); r.tiles != want {
			t.Errorf("size %d: %d tiles read, want %d", size, r.tiles, want)
		}
	}
}

// The checker notices a change of any resource, served by the proxy that interop/run.sh uses.
func TestEachChangedByteIsNoticed(t *testing.T) {
	f := newFixture(t, fixtureSize)
	paths := []string{
		"checkpoint",
		"tile/0/000", "tile/0/255", "tile/0/257", "tile/0/258.p/17",
		"tile/1/000", "tile/1/001.p/2", "tile/2/000.p/1",
		"tile/entries/000", "tile/entries/123", "tile/entries/258.p/17",
	}
	var journal bytes.Buffer
	proxy := httptest.NewServer(&tamperer{
		upstream: newLogClient(f.start(t)), paths: paths, journal: &journal,
	})
	defer proxy.Close()
	if _, err := check(context.Background(), newLogClient(proxy.URL+"/honest"), f.vkey); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	for n, path := range paths {
		_, err := check(context.Background(), newLogClient(fmt.Sprintf("%s/%d", proxy.URL, n)), f.vkey)
		if err == nil {
			t.Errorf("%s: a changed byte was not noticed", path)
		} else if errors.Is(err, errUnreachable) {
			t.Errorf("%s: failed for another reason: %v", path, err)
		} else {
			t.Logf("%s: %v", path, err)
		}
		if line := fmt.Sprintf("changed %d %s\n", n, path); !strings.Contains(journal.String(), line) {
			t.Errorf("%s was never served changed", path)
		}
	}
}

// The checker rejects forged logs with a valid signature.
func TestLyingLogsAreRejected(t *testing.T) {
	text := func(origin, size string, root tlog.Hash, more string) string {
		return fmt.Sprintf("%s\n%s\n%s\n%s", origin, size, base64.StdEncoding.EncodeToString(root[:]), more)
	}
	for name, lie := range map[string]func(f *fixture){
		"another root": func(f *fixture) {
			f.sign(t, text(origin, "600", tlog.RecordHash(nil), ""))
		},
		"another origin": func(f *fixture) {
			f.sign(t, text(origin+"x", "600", f.tree.Hash, ""))
		},
		"a larger size": func(f *fixture) { f.sign(t, text(origin, "601", f.tree.Hash, "")) },
		"a lower size":  func(f *fixture) { f.sign(t, text(origin, "599", f.tree.Hash, "")) },
		"a padded size": func(f *fixture) { f.sign(t, text(origin, "0600", f.tree.Hash, "")) },
		"an extension":  func(f *fixture) { f.sign(t, text(origin, "600", f.tree.Hash, "more\n")) },
		"an entry missing": func(f *fixture) {
			bundle := f.resources["tile/entries/000"]
			f.resources["tile/entries/000"] = bundle[2+len("entry 0"):]
		},
		"an entry too many": func(f *fixture) {
			bundle := f.resources["tile/entries/002.p/88"]
			f.resources["tile/entries/002.p/88"] = append(bundle, 0, 1, 'x')
		},
		"half an entry": func(f *fixture) {
			bundle := f.resources["tile/entries/001"]
			f.resources["tile/entries/001"] = bundle[:len(bundle)-1]
		},
		"a short tile": func(f *fixture) {
			f.resources["tile/0/001"] = f.resources["tile/0/001"][:255*tlog.HashSize]
		},
		"a missing tile": func(f *fixture) { delete(f.resources, "tile/1/000.p/2") },
		"another key": func(f *fixture) {
			_, f.vkey, _ = note.GenerateKey(rand.Reader, origin)
		},
	} {
		f := newFixture(t, 600)
		lie(f)
		if _, err := check(context.Background(), newLogClient(f.start(t)), f.vkey); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// A log may drop a partial tile as soon as the full one exists.
func TestFullTileStandsInForPartial(t *testing.T) {
	f, longer := newFixture(t, 600), newFixture(t, 768)
	for _, kind := range []string{"tile/0/", "tile/entries/"} {
		delete(f.resources, kind+"002.p/88")
		f.resources[kind+"002"] = longer.resources[kind+"002"]
	}
	if _, err := check(context.Background(), newLogClient(f.start(t)), f.vkey); err != nil {
		t.Fatal(err)
	}
}

// A log that cannot be read is not reported as a forged one.
func TestUnreachableIsNotRejected(t *testing.T) {
	f := newFixture(t, 5)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "out of order", http.StatusInternalServerError)
	}))
	gone := httptest.NewServer(http.NotFoundHandler())
	defer broken.Close()
	gone.Close()
	for url, want := range map[string]int{f.start(t): 0, broken.URL: 3, gone.URL: 3} {
		var stdout, stderr bytes.Buffer
		if got := run(context.Background(), []string{"check", url, f.vkey}, &stdout, &stderr); got != want {
			t.Errorf("exit status %d, want %d: %s", got, want, stderr.String())
		}
	}
}
