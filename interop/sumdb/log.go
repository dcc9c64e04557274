package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// Tiles of C2SP tlog-tiles have 256 hashes: height 8 in the words of x/mod.
	tileHeight = 8
	tileWidth  = 1 << tileHeight

	// No resource of a log is larger: 256 entries of 65,535 bytes with their lengths.
	resourceBytesMax = tileWidth * (2 + 65535)
)

// The log answers that a resource does not exist: a defect of the log, not a failure to read it.
var errNotFound = errors.New("not found")

// errUnreachable means that the log could not be read.
var errUnreachable = errors.New("unreachable")

// logClient reads a C2SP tlog-tiles log over HTTP. It verifies nothing.
type logClient struct {
	base string // ends with "/"
	http *http.Client
}

// fetch returns the body of one resource of the log.
func (l *logClient) fetch(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", path, errNotFound)
	default:
		return nil, fmt.Errorf("%w: %s: status %s", errUnreachable, path, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, resourceBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errUnreachable, path, err)
	}
	if len(body) > resourceBytesMax {
		return nil, fmt.Errorf("%s: more than %d bytes", path, resourceBytesMax)
	}
	return body, nil
}

// fetchPartial fetches the resource of t. A log may drop a partial one as soon as the full one
// exists, so a missing partial one is looked for in the full one.
func (l *logClient) fetchPartial(ctx context.Context, t tlog.Tile) ([]byte, error) {
	body, err := l.fetch(ctx, c2spPath(t))
	if errors.Is(err, errNotFound) && t.W < tileWidth {
		t.W = tileWidth
		return l.fetch(ctx, c2spPath(t))
	}
	return body, err
}

// c2spPath turns x/mod's `tile/8/<L>/<N>` and `tile/8/data/<N>` into C2SP's `tile/<L>/<N>` and
// `tile/entries/<N>`. Both write N and the width in the same way.
func c2spPath(t tlog.Tile) string {
	rest := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", tileHeight))
	if entries, ok := strings.CutPrefix(rest, "data/"); ok {
		return "tile/entries/" + entries
	}
	return "tile/" + rest
}

// tileReader gives tlog.TileHashReader the log's hash tiles. TileHashReader returns the tiles
// that it has authenticated against the tree hash through SaveTiles, which keeps them.
type tileReader struct {
	ctx      context.Context
	log      *logClient
	verified map[tlog.Tile][]byte
}

func (r *tileReader) Height() int { return tileHeight }

func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		if known, ok := r.verified[t]; ok {
			data[i] = known
			continue
		}
		body, err := r.log.fetchPartial(r.ctx, t)
		if err != nil {
			return nil, err
		}
		if len(body) < t.W*tlog.HashSize {
			return nil, fmt.Errorf("%s: %d bytes, want %d", c2spPath(t), len(body), t.W*tlog.HashSize)
		}
		data[i] = body[:t.W*tlog.HashSize]
	}
	return data, nil
}

func (r *tileReader) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, t := range tiles {
		r.verified[t] = data[i]
	}
}

// parseCheckpoint reads the text of a C2SP tlog-checkpoint without extension lines.
func parseCheckpoint(text, origin string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, fmt.Errorf("checkpoint: not three lines: %q", text)
	}
	if lines[0] != origin {
		return tlog.Tree{}, fmt.Errorf("checkpoint: origin %q, want %q", lines[0], origin)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, fmt.Errorf("checkpoint: size %q is not a plain decimal number", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("checkpoint: root %q is not 32 bytes in base64", lines[2])
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(root)}, nil
}

// parseBundle cuts an entry bundle, (u16 big-endian length || entry)*, into exactly want entries.
func parseBundle(path string, bundle []byte, want int) ([][]byte, error) {
	entries := make([][]byte, 0, want)
	for rest := bundle; len(rest) > 0; {
		if len(rest) < 2 {
			return nil, fmt.Errorf("%s: ends within a length", path)
		}
		n := int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		if len(rest) < n {
			return nil, fmt.Errorf("%s: ends within an entry", path)
		}
		entries = append(entries, rest[:n])
		rest = rest[n:]
	}
	if len(entries) < want {
		return nil, fmt.Errorf("%s: %d entries, want %d", path, len(entries), want)
	}
	// More entries are allowed only if the full bundle replaces a partial one; the checkpoint
	// does not cover them.
	if len(entries) > want && len(entries) != tileWidth {
		return nil, fmt.Errorf("%s: %d entries, want %d", path, len(entries), want)
	}
	return entries[:want], nil
}
