package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// report has the counts of a check that succeeded.
type report struct {
	tree    tlog.Tree
	entries int64
	tiles   int
	records int // inclusion proofs
	trees   int // consistency proofs
}

// check opens the log's checkpoint with vkey and computes everything else in the log again from
// its entries. Hashes and proofs are x/mod's; only the parsing of C2SP's framing is our own.
//
//  1. the checkpoint's signature (note.Open), origin and form;
//  2. each entry's leaf hash against the hash tiles (tlog.TileHashReader, which authenticates
//     each tile against the root);
//  3. the root hash, recomputed from the entries alone;
//  4. every tile of a tree of this size, byte by byte against the same hashes from the entries;
//  5. inclusion proofs (tlog.ProveRecord from tiles, tlog.CheckRecord);
//  6. consistency proofs (tlog.ProveTree from tiles, tlog.CheckTree) from older sizes, whose
//     roots come from the entries.
func check(ctx context.Context, log *logClient, vkey string) (report, error) {
	tree, err := openCheckpoint(ctx, log, vkey)
	if err != nil {
		return report{}, err
	}
	tiles := &tileReader{ctx: ctx, log: log, verified: make(map[tlog.Tile][]byte)}
	published := tlog.TileHashReader(tree, tiles)

	computed, leaves, err := hashEntries(ctx, log, tree, published)
	if err != nil {
		return report{}, err
	}
	root, err := tlog.TreeHash(tree.N, computed)
	if err != nil {
		return report{}, err
	}
	if root != tree.Hash {
		return report{}, fmt.Errorf("root of the entries is %v, the checkpoint says %v", root, tree.Hash)
	}
	if err := compareTiles(tree, tiles, computed); err != nil {
		return report{}, err
	}
	r := report{tree: tree, entries: tree.N, tiles: len(tiles.verified)}
	if r.records, err = checkRecords(tree, published, leaves); err != nil {
		return report{}, err
	}
	if r.trees, err = checkTrees(tree, published, computed); err != nil {
		return report{}, err
	}
	return r, nil
}

// openCheckpoint returns the tree head that vkey's owner signed.
func openCheckpoint(ctx context.Context, log *logClient, vkey string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("vkey: %w", err)
	}
	raw, err := log.fetch(ctx, "checkpoint")
	if err != nil {
		return tlog.Tree{}, err
	}
	n, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("checkpoint: %w", err)
	}
	return parseCheckpoint(n.Text, verifier.Name())
}

// hashEntries reads every entry bundle, compares each leaf hash with the published tiles, and
// returns all hashes of the tree as computed from the entries, and the leaf hashes.
func hashEntries(
	ctx context.Context, log *logClient, tree tlog.Tree, published tlog.HashReader,
) (hashStore, []tlog.Hash, error) {
	computed := make(hashStore, 0, tlog.StoredHashCount(tree.N))
	leaves := make([]tlog.Hash, 0, tree.N)
	for first := int64(0); first < tree.N; first += tileWidth {
		width := int(min(tileWidth, tree.N-first))
		t := tlog.Tile{H: tileHeight, L: -1, N: first / tileWidth, W: width}
		bundle, err := log.fetchPartial(ctx, t)
		if err != nil {
			return nil, nil, err
		}
		entries, err := parseBundle(c2spPath(t), bundle, width)
		if err != nil {
			return nil, nil, err
		}
		indexes := make([]int64, width)
		for i, entry := range entries {
			at := first + int64(i)
			indexes[i] = tlog.StoredHashIndex(0, at)
			leaf := tlog.RecordHash(entry)
			hashes, err := tlog.StoredHashesForRecordHash(at, leaf, computed)
			if err != nil {
				return nil, nil, err
			}
			computed = append(computed, hashes...)
			leaves = append(leaves, leaf)
		}
		want, err := published.ReadHashes(indexes)
		if err != nil {
			return nil, nil, fmt.Errorf("tiles over leaves %d to %d: %w", first, first+int64(width)-1, err)
		}
		for i := range want {
			if want[i] != leaves[first+int64(i)] {
				return nil, nil, fmt.Errorf("entry %d: leaf hash %v, the tile says %v",
					first+int64(i), leaves[first+int64(i)], want[i])
			}
		}
	}
	return computed, leaves, nil
}

// compareTiles checks that every tile of the tree was read, and agrees with the entries.
func compareTiles(tree tlog.Tree, tiles *tileReader, computed tlog.HashReader) error {
	for _, t := range tlog.NewTiles(tileHeight, 0, tree.N) {
		got, ok := tiles.verified[t]
		if !ok {
			return fmt.Errorf("%s was never read", c2spPath(t))
		}
		want, err := tlog.ReadTileData(t, computed)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s is not what the entries make it", c2spPath(t))
		}
	}
	return nil
}

// checkRecords proves and checks the inclusion of leaves at every kind of edge, and of some
// spread evenly.
func checkRecords(tree tlog.Tree, published tlog.HashReader, leaves []tlog.Hash) (int, error) {
	indexes := edges(tree.N - 1)
	for i := range int64(61) { // a prime, so that the steps do not fall on tile borders
		indexes = append(indexes, i*tree.N/61)
	}
	slices.Sort(indexes)
	indexes = slices.Compact(indexes)
	for _, i := range indexes {
		proof, err := tlog.ProveRecord(tree.N, i, published)
		if err != nil {
			return 0, fmt.Errorf("prove record %d: %w", i, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, i, leaves[i]); err != nil {
			return 0, fmt.Errorf("record %d: %w", i, err)
		}
	}
	return len(indexes), nil
}

// checkTrees proves and checks that older trees are prefixes of this one.
func checkTrees(tree tlog.Tree, published, computed tlog.HashReader) (int, error) {
	checked := 0
	for _, n := range edges(tree.N) {
		if n == 0 {
			continue // x/mod has no proof from the empty tree: there is nothing to prove
		}
		old, err := tlog.TreeHash(n, computed)
		if err != nil {
			return 0, err
		}
		proof, err := tlog.ProveTree(tree.N, n, published)
		if err != nil {
			return 0, fmt.Errorf("prove tree %d: %w", n, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, n, old); err != nil {
			return 0, fmt.Errorf("tree %d: %w", n, err)
		}
		checked++
	}
	return checked, nil
}

// edges returns the numbers from 0 to last, ascending, around which the tree's shape changes.
func edges(last int64) []int64 {
	var all []int64
	for _, border := range []int64{0, tileWidth, tileWidth * tileWidth, last} {
		for n := border - 1; n <= border+1; n++ {
			if n >= 0 && n <= last {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// hashStore keeps the hashes of a tree in x/mod's storage order.
type hashStore []tlog.Hash

// ReadHashes implements tlog.HashReader.
func (s hashStore) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(s)) {
			return nil, fmt.Errorf("hash %d of %d", x, len(s))
		}
		hashes[i] = s[x]
	}
	return hashes, nil
}
