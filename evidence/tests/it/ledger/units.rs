//! Units of more than one statement: batches, Ticks, receipts, and what the ledger writes by itself.

use super::*;

impl Ledger {
    /// Says something else at the place of an earlier statement.
    pub(crate) fn equivocate(
        &mut self,
        who: Who,
        first: &Place,
        task: Option<u8>,
        body: Body,
    ) -> Result<Place, Refused> {
        self.try_say(who, task, body, |made| {
            made.session = Bytes::copy_from_slice(first.session.as_bytes());
            made.sequence = first.sequence.get();
            made.nonce = statement::decode(&first.payload).unwrap().nonce;
        })
    }

    /// Records statements of one session under one signature. `bodies` may look at the places of
    /// those before them only by what they are: their leaves are known when they are signed.
    pub(crate) fn say_batch(&mut self, who: Who, bodies: Vec<(Option<u8>, Body)>) -> Vec<Place> {
        self.try_say_batch(who, bodies).unwrap()
    }

    pub(crate) fn try_say_batch(
        &mut self,
        who: Who,
        bodies: Vec<(Option<u8>, Body)>,
    ) -> Result<Vec<Place>, Refused> {
        let at = self.effective.max(self.time);
        let mut payloads = Vec::new();
        for (position, (task, body)) in bodies.into_iter().enumerate() {
            let mut made = self.statement(who, task, body);
            made.sequence += position as u64;
            if position > 0 {
                made.nonce = Bytes::new();
            }
            payloads.push(statement::encode(&made).map_err(|error| error.to_string())?);
        }
        let manifest = Manifest::over(&payloads).map_err(|error| error.to_string())?;
        // As admission does: nobody batches what an authority says.
        let manifest = Manifest::parse(&manifest.encode()).map_err(|error| error.to_string())?;
        let key = signing_key(who.seed.ok_or("a batch is signed")?);
        let speaker = Speaker {
            key: who.key(),
            principal_leaf: None,
        };
        self.trust
            .may_speak(&speaker, who.producer, at)
            .map_err(|refusal| refusal.to_string())?;
        let binding = self.trust.session_binding(&speaker);
        let first = statement::parse(&payloads[0]).map_err(|error| error.to_string())?;
        let known = self.sessions.get(&first.session);
        match session::judge(known, &first, binding).map_err(|error| error.to_string())? {
            SequencePosition::Next => {}
            SequencePosition::Behind => return Err("again".to_owned()),
        }

        for payload in &payloads {
            let header = statement::parse(payload).map_err(|error| error.to_string())?;
            if let Some(breach) = header.breach {
                return Err(breach.to_string());
            }
        }

        self.due(at)?;
        let payload = manifest.encode();
        let key_id = *key_id(key.public_key()).as_bytes();
        let signature = signature::sign(&key, PayloadType::BatchManifest, &payload);
        let keyed = KeyedSignature {
            key_id: &key_id,
            signature: &signature,
        };
        self.entries
            .push(Entry::manifest(&payload, keyed, self.time).encode());
        self.effective = at;
        let mut places = Vec::new();
        for payload in payloads {
            let header = statement::parse(&payload).map_err(|error| error.to_string())?;
            self.note_task(&payload);
            let leaf = self.next_leaf();
            let entry = Entry::batched(&payload, self.time).encode();
            let hash = leaf_hash(&entry);
            self.kept.entries.insert(leaf, (entry.clone(), who.key()));
            self.entries.push(entry);
            self.kept
                .places
                .insert((header.session, header.sequence), leaf);
            let producer = header.producer.to_owned();
            self.kept.producers.insert(header.session, producer);
            let digest = PayloadDigest::of(&payload);
            self.sessions
                .entry(header.session)
                .and_modify(|session| session.advance(&header, digest))
                .or_insert_with(|| Session::opened(&header, digest, binding));
            let said = ParsedBody::read(&payload).map_err(|error| error.to_string())?;
            let spoken = RecordedStatement {
                leaf,
                leaf_hash: hash,
                at,
                received_at: self.time,
                header: &header,
                payload: &payload,
                payload_digest: None,
                parsed: &said,
                key: who.key(),
            };
            let assessed = self.assessor.record(&mut self.kept, &self.trust, &spoken)?;
            let (session, sequence) = (header.session, header.sequence);
            places.push(Place {
                leaf,
                hash,
                payload,
                session,
                sequence,
                assessed,
            });
        }
        self.owed(at)?;
        self.settle();
        Ok(places)
    }

    /// Time has come to where [`Ledger::at`] set it, and nothing else happens. Whether anything
    /// was due.
    pub(crate) fn tick(&mut self) -> bool {
        let at = self.effective.max(self.time);
        let (before, leaf) = (self.entries.len(), self.next_leaf());
        self.assessor
            .tick(&mut self.kept, &self.trust, leaf, at)
            .unwrap();
        self.owed(at).unwrap();
        self.settle();
        self.entries.len() > before
    }

    /// Asks for a task's receipt; its leaf, if the task is known.
    pub(crate) fn request_receipt(&mut self, task: u8) -> Option<u64> {
        let at = self.effective.max(self.time);
        let task = self.task_id(task);
        self.assessor.task(&mut self.kept, task).unwrap()?;
        self.due(at).unwrap();
        let leaf = self.next_leaf();
        self.assessor.request_receipt(&mut self.kept, task).unwrap();
        self.owed(at).unwrap();
        self.settle();
        Some(leaf)
    }

    /// The operator has confirmed the clock, which says what [`Ledger::at`] set, or less.
    pub(crate) fn confirm_clock(&mut self, clock: Micros) {
        let (from, at) = (self.effective, self.effective.max(self.time));
        let leaf = self.next_leaf();
        let times = (from, at);
        self.assessor
            .confirm_clock(&mut self.kept, &self.trust, leaf, times, clock)
            .unwrap();
        self.owed(at).unwrap();
        self.settle();
    }

    /// Before a unit: what is due happens, and is written; with a Tick first for each portion but
    /// the last.
    pub(super) fn due(&mut self, at: Micros) -> Result<(), String> {
        while self.assessor.crowded(&mut self.kept, at)? {
            let leaf = self.next_leaf();
            self.assessor.tick(&mut self.kept, &self.trust, leaf, at)?;
            self.owed(at)?;
        }
        let leaf = self.next_leaf();
        self.assessor
            .advance(&mut self.kept, &self.trust, leaf, at)?;
        self.owed(at)
    }

    pub(super) fn owed(&mut self, at: Micros) -> Result<(), String> {
        loop {
            let leaf = self.next_leaf();
            let entry = self
                .assessor
                .ledger_entry(&mut self.kept, &self.trust, leaf, at)?;
            let Some(entry) = entry else { return Ok(()) };
            let parsed = Entry::parse(&entry).unwrap();
            parsed.statement().unwrap();
            assert_eq!(parsed.received_at, at);
            self.entries.push(entry);
            self.effective = at;
        }
    }

    pub(super) fn settle(&mut self) {
        assert!(!self.assessor.has_pending());
        self.kept.take(self.assessor.take_changes());
        if self.forgets {
            self.assessor = Assessor::restore(self.id);
        }
    }
}
