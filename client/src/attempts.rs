//! The attempts of one call: which server comes next, after which pause, and when to stop.

use std::time::Duration;

use tonic::Status;
use tonic_types::StatusExt as _;

use crate::{
    connection::{Connection, Server},
    retry::{Backoff, RetryPolicy, asked_ms, is_transient},
};

/// After this many rounds in which every server is behind, waiting longer is of no use: each server has
/// waited 5 seconds each time.
const LACKING_ROUNDS_MAX: u32 = 2;

/// The state between the attempts of one call. An attempt is a round: one request to each server until one
/// answers. Pauses are taken between rounds.
#[derive(Debug)]
pub(crate) struct Attempts {
    backoff: Backoff,
    /// Position of the server that the next request goes to, or the last one went to.
    server: usize,
    round: Round,
    lacking_rounds: u32,
    /// Servers that said that they are behind have shown their heads since the last progress.
    pub(crate) explained: bool,
    /// Statuses that say that a server lacks what another one may have.
    denies: fn(&Status) -> bool,
}

/// The failures since the last pause.
#[derive(Debug, Default)]
struct Round {
    failed: usize,
    /// Of these, the servers that lack what was asked for: that are behind, or deny having it.
    lacking: usize,
    /// Position of the last server that is behind.
    last_behind: Option<usize>,
    /// The last server that failed otherwise, and its status.
    silent: Option<(usize, Status)>,
    /// The longest time that a server has asked for.
    asked_ms: Option<u64>,
    /// The shortest; `None` if some server has asked for none.
    least_asked_ms: Option<u64>,
}

/// The next step after a failure.
#[derive(Debug)]
pub(crate) enum Next {
    /// The next server is asked at once.
    Server,
    /// The next round begins after this pause.
    After(Duration),
    /// None.
    Nothing(Option<Lacking>),
}

/// The servers that lack what was asked for, in the last round.
#[derive(Debug)]
pub(crate) struct Lacking {
    /// Position of the last one whose ledger is smaller than the request's `min_size`.
    pub(crate) behind: Option<usize>,
    /// Position of the last one that failed otherwise, and its status. If there is none, every server lacks
    /// it.
    pub(crate) silent: Option<(usize, Status)>,
}

impl Attempts {
    /// Begins with the server that new calls go to.
    pub(crate) fn new(connection: &Connection, policy: RetryPolicy) -> Self {
        Self {
            backoff: Backoff::new(policy),
            server: connection.current(),
            round: Round::default(),
            lacking_rounds: 0,
            explained: false,
            denies: |_| false,
        }
    }

    /// Goes to the next server too after a status for which `denies` returns true.
    pub(crate) const fn or_denied(mut self, denies: fn(&Status) -> bool) -> Self {
        self.denies = denies;
        self
    }

    /// Returns the server that the next request goes to; after a failure, the one that failed.
    pub(crate) fn server<'a>(&self, connection: &'a Connection) -> &'a Server {
        connection.at(self.server)
    }

    /// Progress was made: the next failure is a first one again.
    pub(crate) fn reset(&mut self) {
        self.backoff.reset();
        self.round = Round::default();
        self.lacking_rounds = 0;
        self.explained = false;
    }

    /// The rounds in which servers were behind were looked into, and one is not any more.
    pub(crate) const fn note_explained(&mut self) {
        self.explained = true;
        self.lacking_rounds = 0;
    }

    /// The attempts since the last progress.
    pub(crate) const fn count(&self) -> u32 {
        self.backoff.attempts()
    }

    /// A pause that no failure of a server made necessary.
    pub(crate) fn pause(&mut self, jitter: u32) -> Option<Duration> {
        self.backoff.pause(None, jitter)
    }

    /// Returns the step after the status of the last request, and chooses its server.
    pub(crate) fn after(&mut self, connection: &Connection, status: &Status) -> Next {
        let (behind, denies) = (is_behind(status), (self.denies)(status));
        if !is_transient(status) && !denies {
            return Next::Nothing(None);
        }
        let round = &mut self.round;
        round.failed += 1;
        round.lacking += usize::from(behind || denies);
        if behind {
            round.last_behind = Some(self.server);
        } else if !denies {
            round.silent = Some((self.server, status.clone()));
        }
        let asked_ms = asked_ms(status);
        round.least_asked_ms = match round.failed {
            1 => asked_ms,
            _ => round.least_asked_ms.min(asked_ms),
        };
        round.asked_ms = round.asked_ms.max(asked_ms);
        if self.round.failed < connection.count() {
            self.server = connection.move_on(self.server);
            return Next::Server;
        }
        let round = std::mem::take(&mut self.round);
        let lacking = (round.lacking > 0).then_some(Lacking {
            behind: round.last_behind,
            silent: round.silent,
        });
        if round.lacking == round.failed {
            self.lacking_rounds += 1;
            // A server that denies it will not have it later; one that is behind may catch up.
            if round.last_behind.is_none() || self.lacking_rounds >= LACKING_ROUNDS_MAX {
                return Next::Nothing(lacking);
            }
        }
        let jitter = getrandom::u32().unwrap_or(u32::MAX / 2);
        // A server that asks for too much time does not end the attempts at the others.
        let pause = match self.backoff.pause(round.asked_ms, jitter) {
            None => self.backoff.pause(round.least_asked_ms, jitter),
            pause => pause,
        };
        match pause {
            Some(pause) => {
                self.server = connection.move_on(self.server);
                Next::After(pause)
            }
            None => Next::Nothing(lacking),
        }
    }
}

/// Returns true if a server says that its ledger is smaller than the request's `min_size`.
pub(crate) fn is_behind(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable
        && status
            .get_details_error_info()
            .is_some_and(|info| info.reason == "BEHIND")
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        initial_ms: 10,
        pause_ms_max: 100,
        attempts_max: 4,
        total_ms_max: 10_000,
    };

    fn down() -> Status {
        Status::unavailable("down")
    }

    fn behind() -> Status {
        let details = ErrorDetails::with_error_info(
            "BEHIND",
            "deed.v1",
            [("tree_size".to_owned(), "2".to_owned())],
        );
        Status::with_error_details(Code::Unavailable, "behind", details)
    }

    fn busy(asked: Duration) -> Status {
        let details = ErrorDetails::with_retry_info(Some(asked));
        Status::with_error_details(Code::ResourceExhausted, "busy", details)
    }

    fn pause(next: Next) -> u128 {
        let Next::After(pause) = next else {
            panic!("{next:?}");
        };
        pause.as_millis()
    }

    /// Returns the last server that is behind, and the last one that is silent.
    fn lacking(next: Next) -> (Option<usize>, Option<usize>) {
        let Next::Nothing(Some(lacking)) = next else {
            panic!("{next:?}");
        };
        (lacking.behind, lacking.silent.map(|(position, _)| position))
    }

    #[tokio::test]
    async fn a_round_asks_every_server_once_and_then_pauses() {
        let connection = Connection::lazy(&["http://a", "http://b", "http://c"]);
        let mut attempts = Attempts::new(&connection, POLICY);
        let mut asked = Vec::new();
        for round in 0..4 {
            for _ in 0..2 {
                asked.push(attempts.server);
                let next = attempts.after(&connection, &down());
                assert!(matches!(next, Next::Server), "{next:?}");
            }
            asked.push(attempts.server);
            let paused = pause(attempts.after(&connection, &down()));
            assert!((5 << round..=10 << round).contains(&paused), "{paused}");
        }
        assert_eq!(asked, [0, 1, 2].repeat(4));
        for _ in 0..2 {
            attempts.after(&connection, &down());
        }
        let end = attempts.after(&connection, &down());
        assert!(matches!(end, Next::Nothing(None)), "{end:?}");
    }

    #[tokio::test]
    async fn new_calls_begin_where_the_last_one_arrived() {
        let connection = Connection::lazy(&["http://a", "http://b"]);
        let (mut one, mut late) = (
            Attempts::new(&connection, POLICY),
            Attempts::new(&connection, POLICY),
        );
        one.after(&connection, &down());
        assert_eq!((one.server, connection.current()), (1, 1));
        // It has failed at the first server too: that the second one is asked now is known already.
        late.after(&connection, &down());
        assert_eq!((late.server, connection.current()), (1, 1));
        assert_eq!(Attempts::new(&connection, POLICY).server, 1);
    }

    #[tokio::test]
    async fn one_attempt_is_each_server_once() {
        let connection = Connection::lazy(&["http://a", "http://b"]);
        let mut attempts = Attempts::new(&connection, RetryPolicy::never());
        let next = attempts.after(&connection, &down());
        assert!(matches!(next, Next::Server), "{next:?}");
        let next = attempts.after(&connection, &down());
        assert!(matches!(next, Next::Nothing(None)), "{next:?}");
    }

    #[tokio::test]
    async fn the_longest_time_that_a_server_of_the_round_asks_for_is_waited() {
        let connection = Connection::lazy(&["http://a", "http://b"]);
        let mut attempts = Attempts::new(&connection, POLICY);
        attempts.after(&connection, &busy(Duration::from_millis(900)));
        let paused = pause(attempts.after(&connection, &busy(Duration::from_millis(300))));
        assert!((900..=1_125).contains(&paused), "{paused}");
        attempts.after(&connection, &down());
        assert!(pause(attempts.after(&connection, &down())) <= 20);
        // Unless it asks for more than there is: the other one may be there sooner.
        attempts.after(&connection, &busy(Duration::MAX));
        assert!(pause(attempts.after(&connection, &down())) <= 40);
        attempts.after(&connection, &busy(Duration::MAX));
        let paused = pause(attempts.after(&connection, &busy(Duration::from_millis(300))));
        assert!((300..=375).contains(&paused), "{paused}");
        attempts.reset();
        attempts.after(&connection, &busy(Duration::MAX));
        let end = attempts.after(&connection, &busy(Duration::MAX));
        assert!(matches!(end, Next::Nothing(None)), "{end:?}");
    }

    #[tokio::test]
    async fn what_is_refused_is_asked_nobody_else() {
        let connection = Connection::lazy(&["http://a", "http://b"]);
        for code in [Code::InvalidArgument, Code::NotFound, Code::Internal] {
            let mut attempts = Attempts::new(&connection, POLICY);
            let next = attempts.after(&connection, &Status::new(code, ""));
            assert!(matches!(next, Next::Nothing(None)), "{next:?}");
        }
        assert_eq!(connection.current(), 0);
    }

    #[tokio::test]
    async fn servers_that_are_behind_have_two_rounds() {
        let connection = Connection::lazy(&["http://a", "http://b"]);
        let mut attempts = Attempts::new(&connection, POLICY);
        attempts.after(&connection, &behind());
        pause(attempts.after(&connection, &behind()));
        attempts.after(&connection, &behind());
        let end = attempts.after(&connection, &behind());
        assert_eq!(lacking(end), (Some(1), None));
        // One that is not there, in place of one that is behind, may have more: all attempts are made.
        attempts.reset();
        for _ in 0..4 {
            attempts.after(&connection, &behind());
            pause(attempts.after(&connection, &down()));
        }
        attempts.after(&connection, &behind());
        let end = attempts.after(&connection, &down());
        let (behind, silent) = lacking(end);
        assert!(behind.is_some() && silent.is_some() && behind != silent);
    }

    #[tokio::test]
    async fn what_every_server_denies_is_not_asked_again() {
        let denies: fn(&Status) -> bool = |status| status.code() == Code::OutOfRange;
        let denied = Status::out_of_range("beyond the tree");
        let connection = Connection::lazy(&["http://a", "http://b"]);
        let mut attempts = Attempts::new(&connection, POLICY).or_denied(denies);
        let next = attempts.after(&connection, &denied);
        assert!(matches!(next, Next::Server), "{next:?}");
        let end = attempts.after(&connection, &denied);
        assert_eq!(lacking(end), (None, None));
        // If one does not answer, the others are asked again.
        let mut attempts = Attempts::new(&connection, POLICY).or_denied(denies);
        attempts.after(&connection, &denied);
        pause(attempts.after(&connection, &down()));
    }
}
