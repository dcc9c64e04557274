//! Tests that a ledger is the same wherever turns are cut, with signatures, batches and trust
//! statements.

use super::*;

/// One act of a party in a ledger with keys.
#[derive(Debug, Clone)]
enum Act {
    Signed,
    Batch(usize),
    Unsigned,
    Repeat(usize),
    Register(u8),
    Revoke(u8),
}

fn acts() -> impl Strategy<Value = Vec<(u8, Act)>> {
    let act = prop_oneof![
        6 => Just(Act::Signed),
        4 => (1_usize..9).prop_map(Act::Batch),
        2 => Just(Act::Unsigned),
        2 => any::<usize>().prop_map(Act::Repeat),
        1 => (10_u8..14).prop_map(Act::Register),
        1 => (10_u8..14).prop_map(Act::Revoke),
    ];
    prop::collection::vec((0_u8..4, act), 1..60)
}

/// Returns the requests of these acts; each must not be cut.
fn requests(
    ledger: &ByHand,
    authority: &mut Authority,
    acts: &[(u8, Act)],
) -> Vec<Vec<v1::Envelope>> {
    let mut producers: Vec<_> = (0..4)
        .map(|n| {
            let mut producer = Producer::new(ledger.id, n);
            producer.producer = format!("spiffe://example.org/agent-{n}");
            producer
        })
        .collect();
    let mut made: Vec<Vec<v1::Envelope>> = Vec::new();
    for (n, act) in acts {
        let producer = &mut producers[usize::from(*n)];
        made.push(match act {
            Act::Signed => vec![signed(producer.intent("r"), &key(10 + n))],
            Act::Batch(count) => batched(
                (0..*count).map(|_| producer.chained_intent("b")).collect(),
                &key(10 + n),
            ),
            Act::Unsigned => vec![producer.intent("u")],
            Act::Repeat(which) if !made.is_empty() => made[which % made.len()].clone(),
            Act::Repeat(_) => vec![producer.intent("u")],
            Act::Register(seed) => vec![authority.registers(
                &key(*seed),
                &format!("spiffe://example.org/agent-{}", seed - 10),
            )],
            Act::Revoke(seed) => vec![authority.revokes(&key(*seed))],
        });
    }
    made
}

/// Makes a ledger in which the first two agents have keys.
fn with_keys() -> (ByHand, Authority) {
    let mut ledger = ByHand::new();
    let mut authority = Authority::new(ledger.id);
    let first: Vec<_> = (0..4)
        .map(|n| authority.registers(&key(10 + n), &format!("spiffe://example.org/agent-{n}")))
        .collect();
    say(&mut ledger, 5, &first);
    (ledger, authority)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The result is the same however turns are cut, and whether or not memory was lost in between.
    #[test]
    fn cuts_do_not_matter(
        acts in acts(),
        cuts in prop::collection::vec((1_usize..9, any::<bool>()), 1..20),
    ) {
        let (mut whole, mut authority) = with_keys();
        let all = requests(&whole, &mut authority, &acts);
        let batches: Vec<_> = all
            .iter()
            .map(|request| try_admit(&whole, request).0)
            .collect();
        let expected = whole.turn(&batches);

        let (mut cut, _) = with_keys();
        let mut placements = Vec::new();
        let mut rest = &all[..];
        for (length, forget) in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*length));
            let batches: Vec<_> = now
                .iter()
                .map(|request| try_admit(&cut, request).0)
                .collect();
            placements.extend(cut.turn(&batches));
            rest = later;
            if *forget {
                cut.forget_sessions();
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(placements, expected);
        prop_assert_eq!(cut.entries(), whole.entries());
        prop_assert_eq!(cut.records(), whole.records());
        prop_assert_eq!(&*cut.trust.read(), &*whole.trust.read());
        // A restart would read this trust state.
        let (entry, ..) = genesis();
        let loaded = recover::trust(&cut.store, NUMBER, &entry).unwrap();
        prop_assert_eq!(&loaded, &*whole.trust.read());
    }

    /// The entries of a log, stepped into a second store, give the same root and records.
    #[test]
    fn a_replay_gives_the_same_ledger(acts in acts()) {
        let (mut original, mut authority) = with_keys();
        for (time, request) in (6..).zip(requests(&original, &mut authority, &acts)) {
            let (batch, _) = Admission {
                ledger_id: original.id,
                trust: &original.trust,
                sender: &Sender::anybody(),
                received_at: Micros::new(time),
        holds_contents: false,
        log_signers: None,
            }
            .admit_here(&request);
            original.turn(&[batch]);
        }
        let mut replayed = ByHand::new();
        let entries = original.entries();
        let mut rest = &entries[1..];
        while let Some(first) = rest.first() {
            let entry = Entry::parse(first).unwrap();
            let length = match entry.payload_type {
                PayloadType::BatchManifest => {
                    let manifest = deed_evidence::batch::Manifest::parse(entry.payload).unwrap();
                    1 + manifest.count.get() as usize
                }
                _ => 1,
            };
            let request: Vec<_> = rest[..length]
                .iter()
                .map(|bytes| envelope_of(&Entry::parse(bytes).unwrap()))
                .collect();
            for placement in say(&mut replayed, entry.received_at.get(), &request) {
                prop_assert!(
                    matches!(placement, Placement::Recorded { .. } | Placement::Linked(_)),
                    "{:?}", placement
                );
            }
            rest = &rest[length..];
        }
        prop_assert_eq!(replayed.state.edge().head(), original.state.edge().head());
        prop_assert_eq!(replayed.entries(), entries);
        prop_assert_eq!(replayed.records(), original.records());
        prop_assert_eq!(&*replayed.trust.read(), &*original.trust.read());
    }
}
