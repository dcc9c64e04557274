//! Attacks on the ledger's gates that need a network: concurrent requests, replays, order within a
//! batch, kill -9.

mod killed;

use std::collections::BTreeMap;

use bytes::Bytes;
use deed_evidence::{
    assess::{Assessed, IntentVerdict},
    entry::Entry,
    replay::Replay,
    statement,
};
use deed_proto::v1::{
    self, FindingKind, IntentState, KeyRole, LayerState, Verdict, rejection::Reason,
    statement::Body,
};
use deed_tests::{
    keys::{Authority, batch, key, registration_as, signed},
    oracle::Log,
    random::Random,
    rpc::{Clients, TestLedger, accepted},
    run,
    statements::Producer,
    within,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{AGENT, LOW, Scene, TASK, Voice, agent_key, approval, gates::replays, grant, payment};

/// Producers that write at the same time.
const PRODUCERS: u64 = 8;

/// The assessments in receipts, by leaf.
#[derive(Debug, Clone, PartialEq)]
struct Verdicts(BTreeMap<u64, v1::Assessed>);

/// Returns an assessment as the protocol's message.
fn message(assessed: &Assessed) -> v1::Assessed {
    let IntentVerdict {
        state,
        missing,
        denied,
    } = assessed.intent.clone().unwrap_or_default();
    v1::Assessed {
        intent: state.into(),
        missing,
        denied,
        findings: assessed.findings.clone(),
    }
}

impl Verdicts {
    /// Returns the assessments that follow from the entries.
    fn replayed(log: &Log) -> Self {
        let mut entries = (0..).zip(&log.entries);
        let (_, genesis) = entries.next().expect("a genesis entry");
        let mut replay = Replay::begin(genesis).expect("a genesis entry");
        let mut verdicts = BTreeMap::new();
        for (leaf, entry) in entries {
            let assessed = replay.leaf(leaf, entry).expect("an entry in place");
            let said = assessed.filter(|it| it.intent.is_some() || !it.findings.is_empty());
            if let Some(said) = said {
                verdicts.insert(leaf, message(&said));
            }
        }
        replay.end().expect("nothing is missing");
        Self(verdicts)
    }

    /// Checks that receipts said exactly this. Leaves of `told` that are missing here must have got
    /// no assessment.
    #[track_caller]
    fn expect(&self, told: &BTreeMap<u64, Option<v1::Assessed>>) {
        for (leaf, said) in told {
            assert_eq!(said.as_ref(), self.0.get(leaf), "leaf {leaf}");
        }
    }
}

/// Returns the Intents of a log, with their grant's hash and amount.
fn intents(log: &Log) -> Vec<(u64, v1::Intent)> {
    let mut found = Vec::new();
    for (leaf, bytes) in (0..).zip(&log.entries) {
        let entry = Entry::parse(bytes).expect("an entry");
        if entry.payload_type != v1::PayloadType::Statement {
            continue;
        }
        let said = statement::decode(&bytes.slice_ref(entry.payload)).expect("a statement");
        if let Some(Body::Intent(intent)) = said.body {
            found.push((leaf, intent));
        }
    }
    found
}

/// Sends the requests of one of the concurrent producers on a stream, as fast as answers come.
async fn hammer(
    url: String,
    ledger: TestLedger,
    mut voice: Voice,
    grants: Vec<Bytes>,
    mut random: Random,
) -> BTreeMap<u64, Option<v1::Assessed>> {
    const REQUESTS: usize = 25;
    let clients = Clients::open(&url).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let sending = async {
        for _ in 0..REQUESTS {
            let count = random.between(1, 8);
            let made: Vec<_> = (0..count)
                .map(|_| {
                    let which = random.between(0, grants.len() as u64 - 1);
                    let cents = i64::try_from(random.between(1, 60)).unwrap();
                    let grant = &grants[usize::try_from(which).unwrap()];
                    voice
                        .producer
                        .make_in(LOW, Body::Intent(payment(grant, cents)))
                })
                .collect();
            let envelopes = if random.once_in(2) {
                batch(&made, &voice.key)
            } else {
                made.iter().map(|one| signed(one, &voice.key)).collect()
            };
            let request = v1::AppendRequest {
                envelopes,
                ..ledger.request(&[])
            };
            sender.send(request).await.expect("the stream is open");
        }
        drop(sender);
    };
    let taking = async {
        let stream = clients.append_stream(ReceiverStream::new(receiver)).await;
        let mut answers = stream.expect("a stream");
        let mut told = BTreeMap::new();
        while let Some(answer) = within("an answer", answers.message())
            .await
            .expect("no failure")
        {
            for result in &answer.results {
                let receipt = accepted(result);
                told.insert(receipt.leaf_index, receipt.assessed);
            }
        }
        told
    };
    tokio::join!(sending, taking).1
}

#[test]
fn eight_streams_together_spend_what_was_granted_and_no_more() {
    const USES: u64 = 100;
    const CENTS: i64 = 5_000;
    const SHARED: u64 = 40;
    run(async {
        let mut random = Random::seeded();
        let mut scene = Scene::set().await;
        let by_uses = scene.grant(LOW, USES, Some(1_000_000)).await;
        let by_amount = scene.grant(LOW, 0, Some(CENTS)).await;
        // This grant is delegated twice: the two children share what the parent has.
        let parent = scene.grant(LOW, SHARED, None).await;
        let mut helpers = Vec::new();
        for number in [20_u8, 21] {
            let name = format!("spiffe://shop.example/helper/{number}");
            let controller = "https://shop.example/support";
            let (id, helper) = (scene.ledger.id, key(number));
            let registered = registration_as(id, &helper, KeyRole::Agent, &name, controller);
            let said = scene.authority.says(Body::KeyRegistered(registered));
            scene.record(said).await;
            let Body::Grant(whole) = grant(SHARED, None) else {
                unreachable!("it is a grant");
            };
            let child = v1::Grant {
                subject: name.clone(),
                parent: parent.clone(),
                expires_us: whole.expires_us - 60_000_000,
                ..whole
            };
            let said = scene.agent.says_in(LOW, Body::Grant(child));
            let child = scene.record(said).await.leaf_hash;
            let mut voice = Voice {
                producer: Producer::new(id, number.into()).named(&name),
                key: helper,
            };
            let accepts = v1::GrantAccepted {
                grant: child.clone(),
            };
            let said = voice.says_in(LOW, Body::GrantAccepted(accepts));
            scene.record(said).await;
            helpers.push((voice, vec![child]));
        }
        let agents = (0..PRODUCERS - 2).map(|_| {
            let grants = vec![by_uses.clone(), by_amount.clone()];
            (scene.agent_session(), grants)
        });
        let everybody: Vec<_> = agents.chain(helpers).collect();
        let children: Vec<_> = everybody
            .iter()
            .skip(6)
            .map(|(_, of)| of[0].clone())
            .collect();
        let url = scene.server().url();
        let hammering: Vec<_> = everybody
            .into_iter()
            .map(|(voice, grants)| {
                let (url, ledger, random) = (url.clone(), scene.ledger.clone(), random.fork());
                tokio::spawn(hammer(url, ledger, voice, grants, random))
            })
            .collect();
        let mut told = BTreeMap::new();
        for one in hammering {
            told.extend(one.await.expect("a producer without a failure"));
        }

        let log = Log::read(&scene.clients, &scene.ledger).await;
        let cleared = |leaf: &u64| match told.get(leaf) {
            Some(Some(said)) => said.intent() == IntentState::Cleared,
            other => panic!("leaf {leaf} was told {other:?}"),
        };
        // The log's order alone decides: an Intent that still fits is cleared, one that does not is
        // denied.
        let (mut uses, mut spent, mut shared) = (0, 0, 0);
        for (leaf, intent) in intents(&log) {
            let cents = intent.amount.as_ref().unwrap().minor_units;
            let fits = if intent.grant == by_uses {
                uses += 1;
                uses <= USES
            } else if intent.grant == by_amount {
                let fits = spent + cents <= CENTS;
                spent += if fits { cents } else { 0 };
                fits
            } else {
                assert!(children.contains(&intent.grant));
                shared += 1;
                shared <= SHARED
            };
            assert_eq!(cleared(&leaf), fits, "leaf {leaf}: {intent:?}");
        }
        assert!(uses > USES && shared > SHARED, "{uses} and {shared} wanted");
        assert!(spent <= CENTS && spent > CENTS - 60, "{spent} spent");
        Verdicts::replayed(&log).expect(&told);
        replays(&scene).await;
        eprintln!("{uses} uses wanted, {spent} cents spent, {shared} wanted of the shared grant");
        scene.ends_clean();
    });
}

#[test]
fn a_grant_is_good_in_its_own_ledger_alone() {
    run(async {
        let mut scene = Scene::set().await;
        let other = TestLedger::create(&scene.clients, "other").await;
        let said = scene.authority.says_in(LOW, grant(5, None));
        let granted = scene.record(said.clone()).await;
        // The other ledger has the same people, keys and task.
        let mut authority = Authority::new(other.id, 901);
        let controller = "https://shop.example/support";
        let registered = registration_as(other.id, &agent_key(), KeyRole::Agent, AGENT, controller);
        let set = authority.says(Body::KeyRegistered(registered));
        let policies = authority.says(Body::PolicySet(crate::shipped_policies()));
        let opened = authority.says_in(
            LOW,
            Body::TaskOpened(v1::TaskOpened {
                requested_by: "ticket:4711".to_owned(),
                risk_tier: v1::RiskTier::Low.into(),
                ..v1::TaskOpened::default()
            }),
        );
        let send = async |envelopes: Vec<v1::Envelope>| {
            let request = v1::AppendRequest {
                envelopes,
                ..other.request(&[])
            };
            let answer = within("an answer", scene.clients.append(request)).await;
            answer.expect("an answer").results
        };
        for result in send(vec![set, policies, opened]).await {
            accepted(&result);
        }
        // The statement itself is sent again.
        let replayed = send(vec![said]).await;
        let rejection = deed_tests::rpc::rejected(&replayed[0]);
        assert_eq!(rejection.reason(), Reason::WrongLedger, "{rejection:?}");
        // The name of its session is used.
        let mut agent = Voice {
            producer: Producer::new(other.id, 5).named(AGENT),
            key: agent_key(),
        };
        let named = agent.says_in(LOW, Body::Intent(payment(&granted.leaf_hash, 1)));
        let receipt = accepted(&send(vec![named]).await[0]);
        let assessed = receipt.assessed.expect("what is said of it");
        assert_eq!(assessed.intent(), IntentState::Denied, "{assessed:?}");
        assert_eq!(assessed.findings[0].kind(), FindingKind::UnknownGrant);
        // The control: the statement is cleared in its own ledger.
        let here = scene.announce(LOW, payment(&granted.leaf_hash, 1)).await;
        here.expect(IntentState::Cleared, &[]);
        scene.ends_clean();
    });
}

#[test]
fn no_clearance_comes_between_the_statements_of_a_batch() {
    run(async {
        let mut scene = Scene::set().await;
        let grant = scene.grant(TASK, 5, Some(10_000)).await;

        // In one request, each statement signed by itself, the Clearance is recorded between them,
        // as it should be.
        let intent = scene.intends(&grant).await;
        scene.decides(&intent, Verdict::Allow).await;
        let both = vec![
            scene.approver.says(approval(&intent, Verdict::Allow)),
            scene.agent.says(intent.outcome()),
        ];
        let answer = scene.send(both).await;
        let receipts: Vec<_> = answer.results.iter().map(accepted).collect();
        assert_eq!(receipts[1].leaf_index, receipts[0].leaf_index + 2);
        assert!(
            receipts.iter().all(|it| it.assessed.is_none()),
            "{receipts:?}"
        );

        // In one batch nothing is recorded between them: the approver's Outcome counts for nothing, and
        // the Clearance comes behind it.
        let intent = scene.intends(&grant).await;
        scene.decides(&intent, Verdict::Allow).await;
        let statements = [
            scene
                .approver
                .producer
                .make(approval(&intent, Verdict::Allow)),
            scene.approver.producer.make(intent.outcome()),
        ];
        let answer = scene
            .send(batch(&statements, &scene.approver.key.clone()))
            .await;
        let receipts: Vec<_> = answer.results.iter().map(accepted).collect();
        let said = receipts[2]
            .assessed
            .as_ref()
            .expect("what is said of the Outcome");
        let kinds: Vec<_> = said.findings.iter().map(v1::Finding::kind).collect();
        assert_eq!(kinds, [FindingKind::WrongRole], "{said:?}");
        let acts = scene.acts(TASK).await;
        let [good, bad] = &acts[..] else {
            panic!("two acts: {acts:?}");
        };
        assert_eq!(good.state(), IntentState::Completed, "{good:?}");
        assert!(good.clearance_leaf.is_some());
        assert_eq!(bad.state(), IntentState::Cleared, "{bad:?}");
        assert_eq!(
            bad.clearance_leaf,
            Some(receipts[2].leaf_index + 1),
            "{bad:?}"
        );
        assert_eq!(bad.outcome_leaf, None, "{bad:?}");
        let layers = bad.layers.as_ref().unwrap();
        assert_eq!(layers.result(), LayerState::Missing, "{layers:?}");
        let layers = good.layers.as_ref().unwrap();
        assert_eq!(layers.intent(), LayerState::Proven, "{layers:?}");
        replays(&scene).await;
        scene.ends_clean();
    });
}
