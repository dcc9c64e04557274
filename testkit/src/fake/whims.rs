//! Series of whims, for property tests.

use proptest::prelude::*;
use tonic::Code;

use super::Whim;

fn any_whim() -> impl Strategy<Value = Whim> {
    let expected = prop_oneof![Just(None), (0..9_u64).prop_map(Some), Just(Some(u64::MAX)),];
    let code = prop_oneof![
        Just(Code::Unavailable),
        Just(Code::PermissionDenied),
        Just(Code::InvalidArgument),
        Just(Code::Internal),
    ];
    prop_oneof![
        2 => Just(Whim::Fair),
        4 => (any::<bool>(), expected)
            .prop_map(|(record, expected)| Whim::Refuse { record, expected }),
        4 => (any::<bool>(), code).prop_map(|(record, code)| Whim::Lose { record, code }),
    ]
}

/// Whims of the next append requests, and the length that sessions are said to have at most.
pub fn any_whims() -> impl Strategy<Value = (Vec<Whim>, Option<usize>)> {
    let length = prop_oneof![Just(None), (0..6_usize).prop_map(Some)];
    (prop::collection::vec(any_whim(), 1..16), length)
}
