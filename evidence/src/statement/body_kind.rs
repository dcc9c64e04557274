//! The kinds of bodies that a statement may have, with the properties of each: who says it, and what
//! it needs.

use deed_proto::v1::statement::Body;

/// The producer of what an authority says: every trust statement, Revocation and
/// FindingDisposition, and those TaskOpened, TaskClosed and Grant that are the owner's own.
pub const AUTHORITY_PRODUCER: &str = "deed:authority";

/// The producer of what the ledger itself says, but for its genesis statement.
pub const LEDGER_PRODUCER: &str = "deed:ledger";

/// Defines [`BodyKind`] from the bodies in `Statement.body`.
macro_rules! define {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, $name:literal;)*) => {
        /// The bodies of this version: those of `Statement.body` in the .proto.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum BodyKind {
            $($(#[$doc])* $kind,)*
        }

        impl BodyKind {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The field's name in `Statement.body`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// The field's number in `Statement`.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$kind => $number,)*
                }
            }

            /// Returns the kind of a body that is decoded.
            #[must_use]
            pub const fn of(body: &Body) -> Self {
                match body {
                    $(Body::$kind(_) => Self::$kind,)*
                }
            }

            pub(crate) const fn of_field(number: u32) -> Option<Self> {
                Some(match number {
                    $($number => Self::$kind,)*
                    _ => return None,
                })
            }
        }
    };
}

deed_proto::statement_bodies!(define);

/// The producers whose statements may have a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ProducerKind {
    /// The ledger itself.
    Ledger,
    /// Anybody but the ledger and its authorities.
    Producer,
    /// An authority of the ledger.
    Authority,
    /// A producer or an authority.
    Either,
}

/// Properties of a body that do not depend on what it says.
#[derive(Clone, Copy)]
struct Properties {
    producer: ProducerKind,
    is_trust: bool,
    needs_task: bool,
    needs_assessment: bool,
    needs_policy: bool,
}

const fn by(producer: ProducerKind) -> Properties {
    Properties {
        producer,
        is_trust: false,
        needs_task: false,
        needs_assessment: false,
        needs_policy: false,
    }
}

impl Properties {
    const fn trust(mut self) -> Self {
        self.is_trust = true;
        self
    }

    const fn of_a_task(mut self) -> Self {
        self.needs_task = true;
        self
    }

    const fn assessed(mut self) -> Self {
        self.needs_assessment = true;
        self
    }

    const fn by_policy(mut self) -> Self {
        self.needs_policy = true;
        self
    }
}

impl BodyKind {
    /// A new body does not compile before it has its place here.
    #[inline]
    const fn properties(self) -> Properties {
        match self {
            Self::Genesis => by(ProducerKind::Ledger),
            Self::Tick => by(ProducerKind::Ledger).assessed(),
            Self::Clearance | Self::TaskReceipt => by(ProducerKind::Ledger).of_a_task().assessed(),
            Self::TaskOpened | Self::TaskClosed => by(ProducerKind::Either).of_a_task(),
            Self::Grant => by(ProducerKind::Either).of_a_task().assessed(),
            Self::GrantAccepted => by(ProducerKind::Producer).of_a_task().assessed(),
            Self::Intent => by(ProducerKind::Producer).of_a_task().by_policy(),
            Self::Outcome => by(ProducerKind::Producer).of_a_task(),
            Self::Decision | Self::Approval => by(ProducerKind::Producer)
                .of_a_task()
                .assessed()
                .by_policy(),
            Self::Observation => by(ProducerKind::Producer).assessed(),
            Self::Heartbeat | Self::SessionClosed => by(ProducerKind::Producer),
            Self::Revocation => by(ProducerKind::Authority).of_a_task().assessed(),
            Self::FindingDisposition => by(ProducerKind::Authority).assessed(),
            Self::AuthoritiesChanged
            | Self::KeyRegistered
            | Self::KeyRevoked
            | Self::PrincipalBound
            | Self::PolicySet
            | Self::RetentionSet
            | Self::LegalHoldPlaced
            | Self::LegalHoldReleased
            | Self::LogKeyRotated
            | Self::Erasure => by(ProducerKind::Authority).trust(),
        }
    }

    /// Returns true if it decides what later entries mean: who speaks for whom, which rules are in
    /// force. Trust statements are signed by an authority, and their entries form a chain.
    #[must_use]
    pub const fn is_trust(self) -> bool {
        self.properties().is_trust
    }

    /// Returns true if only the ledger itself writes it: never taken from a producer.
    #[must_use]
    pub const fn is_ledgers(self) -> bool {
        matches!(self.producer_kind(), ProducerKind::Ledger)
    }

    /// Returns true if the evidence policy in force is asked when it is recorded.
    #[must_use]
    pub const fn needs_policy(self) -> bool {
        self.properties().needs_policy
    }

    /// Returns true if it means something from rules version 2 on only.
    #[must_use]
    pub const fn needs_assessment(self) -> bool {
        self.properties().needs_assessment
    }

    /// Returns true if the header must name a task.
    #[must_use]
    pub const fn needs_task(self) -> bool {
        self.properties().needs_task
    }

    /// Returns the producers whose statements may have it.
    pub(super) const fn producer_kind(self) -> ProducerKind {
        self.properties().producer
    }
}
