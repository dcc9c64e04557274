//! Batches: a manifest and the statements behind it, admitted together or not at all.

use std::collections::HashSet;

use deed_evidence::{
    batch::{self, BatchError, Manifest},
    entry::Entry,
    statement::{AUTHORITY_PRODUCER, Header},
};
use deed_proto::v1::{self, PayloadType, rejection::Reason};

use super::{
    Admitting, Authorship, Lookup, Piece, Rejected, StatementBatch, check, keyed_signature,
    malformed, signatures::Unverified, wrong_ledger,
};

/// Admits the batch that begins at envelope `begin`; returns the number of envelopes that belong to
/// it. If one of them cannot be recorded, none is: its rejection says why, and those of the others
/// name it.
pub(super) fn admit(
    lookup: &mut Lookup<'_>,
    admitting: &mut Admitting,
    envelopes: &[v1::Envelope],
    begin: usize,
) -> usize {
    let manifest = match Manifest::parse(&envelopes[begin].payload) {
        Ok(manifest) => manifest,
        Err(error) => {
            admitting.rejected.push(malformed(&error).at(begin));
            // The number of statements that were meant is not known: unsigned ones behind the
            // manifest may have been meant as part of the batch, and must not pass as something
            // else.
            let rest = &envelopes[begin + 1..];
            let behind = rest.iter().take_while(|next| is_bare_statement(next));
            let behind = behind.count();
            refuse_others(admitting, begin, begin..begin + 1 + behind);
            return 1 + behind;
        }
    };
    let wanted = manifest.count.get() as usize;
    let rest = &envelopes[begin + 1..];
    let statements = &rest[..wanted.min(rest.len())];
    if let Err(rejected) = checked(
        lookup,
        admitting,
        &manifest,
        &envelopes[begin],
        statements,
        begin,
    ) {
        let culprit = rejected.envelope;
        admitting.rejected.push(rejected);
        refuse_others(admitting, culprit, begin..begin + 1 + statements.len());
    }
    1 + statements.len()
}

fn is_bare_statement(envelope: &v1::Envelope) -> bool {
    envelope.payload_type() == PayloadType::Statement
        && envelope.key_id.is_empty()
        && envelope.signature.is_empty()
}

fn checked(
    lookup: &mut Lookup<'_>,
    admitting: &mut Admitting,
    manifest: &Manifest,
    envelope: &v1::Envelope,
    statements: &[v1::Envelope],
    begin: usize,
) -> Result<(), Rejected> {
    let ledger_id = lookup.admission.ledger_id;
    let received_at = lookup.admission.received_at;
    let of_manifest = |rejected: Rejected| rejected.at(begin);
    if manifest.ledger_id != ledger_id {
        return Err(of_manifest(wrong_ledger(ledger_id)));
    }
    if !envelope.attachments.is_empty() {
        let message = "attachments belong to the statements, not to their manifest";
        let rejected = Rejected::new(Reason::ContentMismatch, "attachments", message);
        return Err(of_manifest(rejected));
    }
    let wanted = manifest.count.get() as usize;
    if statements.len() < wanted {
        let message = format!(
            "the manifest is for {wanted} statements and {} follow it in the request",
            statements.len()
        );
        let rejected = Rejected::new(Reason::BatchMismatch, "count", message);
        return Err(of_manifest(rejected));
    }
    let signature = keyed_signature(envelope)
        .map_err(of_manifest)?
        .ok_or_else(|| {
            let message = "a batch manifest must be signed";
            of_manifest(Rejected::new(
                Reason::SignatureRequired,
                "signature",
                message,
            ))
        })?;
    // A batch holds producers' statements only, so its key is a producer's.
    let (key_id, key) = lookup.key(signature.key_id, false).map_err(of_manifest)?;
    let principal_leaf = lookup
        .principal_leaf(&manifest.producer)
        .map_err(of_manifest)?;

    let mut headers = Vec::with_capacity(wanted);
    for (position, statement) in (begin + 1..).zip(statements) {
        let header = member(statement, lookup).map_err(|rejected| rejected.at(position))?;
        admitting
            .take_contents(
                position,
                statement,
                &header,
                lookup.admission.holds_contents,
            )
            .map_err(|rejected| rejected.at(position))?;
        headers.push((header, &statement.payload[..]));
    }
    let step = batch::check(manifest, headers.iter().copied()).map_err(|error| {
        let at = culprit(&error).map_or(begin, |position| begin + 1 + position);
        Rejected::new(Reason::BatchMismatch, "", error.to_string()).at(at)
    })?;

    let entry = Entry {
        principal_leaf,
        ..Entry::manifest(&envelope.payload, signature, received_at)
    };
    let by = Authorship::Signed(key_id);
    let written = admitting.batch.write(&entry, begin, by);
    let mut members = Vec::with_capacity(wanted);
    for (position, ((header, payload), envelope)) in
        (begin + 1..).zip(headers.iter().zip(statements))
    {
        let entry = Entry {
            principal_leaf,
            ..Entry::batched(payload, received_at)
        };
        let by = Authorship::Batched(key_id);
        let said = lookup
            .said(&envelope.payload)
            .map_err(|rejected| rejected.at(position))?;
        let batch = &mut admitting.batch;
        members.push(batch.write_statement(&entry, position, by, header, said));
    }
    // The batch and its signature are added last, so that an error above adds neither.
    admitting.batch.pieces.push(Piece::Batch(StatementBatch {
        manifest: written,
        step,
        members,
    }));
    admitting.signatures.push(Unverified {
        envelope: begin,
        key,
        payload_type: PayloadType::BatchManifest,
        payload: envelope.payload.clone(),
        signature: *signature.signature,
    });
    Ok(())
}

/// Returns the position of the statement that an error is about; `None` if it is about the
/// manifest.
fn culprit(error: &BatchError) -> Option<usize> {
    match error {
        BatchError::Statement { position, .. }
        | BatchError::Other { position, .. }
        | BatchError::Body { position, .. }
        | BatchError::Sequence { position, .. }
        | BatchError::Skipped { position }
        | BatchError::Previous { position }
        | BatchError::ClosedEarly { position } => Some(*position),
        BatchError::Size { .. } | BatchError::Count { .. } | BatchError::Root { .. } => None,
    }
}

/// Checks a statement behind a manifest and returns its header.
fn member<'e>(envelope: &'e v1::Envelope, lookup: &Lookup<'_>) -> Result<Header<'e>, Rejected> {
    if envelope.payload_type() != PayloadType::Statement {
        let message = "only statements follow a batch manifest, as many as it counts";
        return Err(Rejected::new(
            Reason::BatchMismatch,
            "payload_type",
            message,
        ));
    }
    if keyed_signature(envelope)?.is_some() {
        let message = "the manifest's signature is this statement's; leave key_id and signature \
                       empty";
        let reason = Reason::SignatureNotAccepted;
        return Err(Rejected::new(reason, "signature", message));
    }
    let header = check(&envelope.payload, lookup.admission.ledger_id)?;
    if header.producer == AUTHORITY_PRODUCER {
        let message = "what an authority says is signed by itself, not in a batch";
        return Err(Rejected::new(
            Reason::BatchMismatch,
            header.body.name(),
            message,
        ));
    }
    Ok(header)
}

fn refuse_others(admitting: &mut Admitting, culprit: usize, all: std::ops::Range<usize>) {
    for position in all.filter(|&position| position != culprit) {
        admitting.rejected.push(refused_with(culprit).at(position));
    }
}

/// Returns the rejection of the other statements of a batch that envelope `culprit` made fail.
pub(super) fn refused_with(culprit: usize) -> Rejected {
    let message = format!("the batch is recorded whole or not at all; see envelope {culprit}");
    Rejected::new(Reason::BatchRefused, "", message)
}

/// Removes the statements that were refused after they were admitted (their signatures did not
/// verify), and with a manifest every statement of its batch.
pub(super) fn refuse_whole(pieces: &mut Vec<Piece>, rejected: &mut Vec<Rejected>) {
    if rejected.is_empty() || pieces.is_empty() {
        return;
    }
    let refused: HashSet<usize> = rejected.iter().map(|r| r.envelope).collect();
    pieces.retain(|piece| {
        let mut envelopes = piece.payloads().map(|payload| payload.envelope);
        let culprit = envelopes.next().filter(|first| refused.contains(first));
        if let Some(culprit) = culprit {
            rejected.extend(envelopes.map(|other| refused_with(culprit).at(other)));
        }
        culprit.is_none()
    });
}
