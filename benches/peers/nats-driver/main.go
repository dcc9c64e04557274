// Measures how many messages a second a NATS JetStream stream acknowledges.
//
// It prints one line of JSON: messages, elapsed_s, per_s, and latency_us of a message or of a batch.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const subject = "bench.statements"

var (
	url      = flag.String("url", nats.DefaultURL, "address of the NATS server")
	inFlight = flag.Int("in-flight", 1, "messages, or batches, that wait for their acknowledgement at the same time")
	batch    = flag.Int("batch", 1, "messages in one atomic batch; 1 publishes each by itself")
	size     = flag.Int("bytes", 256, "bytes of one message")
	warmup   = flag.Duration("warmup", time.Second, "time before the measurement")
	duration = flag.Duration("duration", 4*time.Second, "time of the measurement")
)

type latency struct {
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
	Max int64 `json:"max"`
}

type result struct {
	Messages  int     `json:"messages"`
	ElapsedS  float64 `json:"elapsed_s"`
	PerS      float64 `json:"per_s"`
	LatencyUS latency `json:"latency_us"`
}

// worker keeps one request in flight: it sends the next one when the last one was acknowledged.
type worker struct {
	conn    *nats.Conn
	id      int
	payload []byte
	sent    int
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	if err := run(); err != nil {
		log.Fatalf("nats-bench: %v", err)
	}
}

func run() error {
	conn, err := nats.Connect(*url)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := makeStream(conn); err != nil {
		return err
	}
	from := time.Now().Add(*warmup)
	until := from.Add(*duration)
	latencies := make([][]time.Duration, *inFlight)
	failures := make([]error, *inFlight)
	var workers sync.WaitGroup
	for id := range *inFlight {
		workers.Add(1)
		go func() {
			defer workers.Done()
			w := worker{conn: conn, id: id, payload: make([]byte, *size)}
			latencies[id], failures[id] = w.work(from, until)
		}()
	}
	workers.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(summary(slices.Concat(latencies...)))
}

// makeStream makes an empty stream on disk, which takes atomic batches where they are asked for.
func makeStream(conn *nats.Conn) error {
	if _, err := request(conn, "$JS.API.STREAM.DELETE.BENCH", nil); err != nil && !errors.Is(err, errNotFound) {
		return err
	}
	config := map[string]any{
		"name": "BENCH", "subjects": []string{subject}, "storage": "file", "retention": "limits",
		"discard": "old", "num_replicas": 1, "max_bytes": int64(8 << 30),
	}
	if *batch > 1 {
		config["allow_atomic"] = true
	}
	body, err := json.Marshal(config)
	if err != nil {
		return err
	}
	_, err = request(conn, "$JS.API.STREAM.CREATE.BENCH", body)
	return err
}

var errNotFound = errors.New("not found")

func request(conn *nats.Conn, to string, body []byte) ([]byte, error) {
	answer, err := conn.Request(to, body, 30*time.Second)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", to, err)
	}
	return answer.Data, failure(answer.Data)
}

// failure returns the error that an answer of JetStream holds, or nil.
func failure(answer []byte) error {
	var parsed struct {
		Error *struct {
			Code        int    `json:"code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer, &parsed); err != nil {
		return fmt.Errorf("unexpected answer %q: %w", answer, err)
	}
	switch {
	case parsed.Error == nil:
		return nil
	case parsed.Error.Code == 404:
		return errNotFound
	default:
		return errors.New(parsed.Error.Description)
	}
}

// work sends until `until`, and returns the latencies of what was acknowledged between the two times.
func (w *worker) work(from, until time.Time) ([]time.Duration, error) {
	var taken []time.Duration
	for {
		start := time.Now()
		if start.After(until) {
			return taken, nil
		}
		if err := w.send(); err != nil {
			return nil, err
		}
		if now := time.Now(); now.After(from) && now.Before(until) {
			taken = append(taken, now.Sub(start))
		}
	}
}

func (w *worker) send() error {
	if *batch == 1 {
		_, err := request(w.conn, subject, w.payload)
		return err
	}
	w.sent++
	batchID := fmt.Sprintf("%d-%d-%d", os.Getpid(), w.id, w.sent)
	for n := 1; n <= *batch; n++ {
		message := nats.NewMsg(subject)
		message.Data = w.payload
		message.Header.Set("Nats-Batch-Id", batchID)
		message.Header.Set("Nats-Batch-Sequence", strconv.Itoa(n))
		if n < *batch {
			if err := w.conn.PublishMsg(message); err != nil {
				return err
			}
			continue
		}
		message.Header.Set("Nats-Batch-Commit", "1")
		answer, err := w.conn.RequestMsg(message, 30*time.Second)
		if err != nil {
			return err
		}
		return failure(answer.Data)
	}
	return nil
}

func summary(taken []time.Duration) result {
	slices.Sort(taken)
	at := func(quantile float64) int64 {
		if len(taken) == 0 {
			return 0
		}
		return taken[int(quantile*float64(len(taken)-1))].Microseconds()
	}
	messages := len(taken) * *batch
	return result{
		Messages:  messages,
		ElapsedS:  duration.Seconds(),
		PerS:      float64(messages) / duration.Seconds(),
		LatencyUS: latency{P50: at(0.5), P99: at(0.99), Max: at(1)},
	}
}
