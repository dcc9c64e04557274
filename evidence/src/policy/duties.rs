//! Duties after an act, as a permit's annotations name them.

/// Duties once an Intent is cleared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Duties {
    /// The Outcome commits to the call as it was sent.
    pub tool_call: bool,
    /// The Outcome commits to the response that the model saw.
    pub response: bool,
    /// The Outcome commits to the result as the tool gave it.
    pub result: bool,
    /// An independent downstream system confirms the effects within so many microseconds.
    pub corroborate_within_us: Option<i64>,
}

/// A year of 365 days: 365 * 24 * 60 * 60.
const CORROBORATE_SECONDS_MAX: i64 = 31_536_000;

impl Duties {
    /// The duties of both.
    #[must_use]
    pub(crate) fn with(self, other: Self) -> Self {
        let within = [self.corroborate_within_us, other.corroborate_within_us];
        Self {
            tool_call: self.tool_call || other.tool_call,
            response: self.response || other.response,
            result: self.result || other.result,
            corroborate_within_us: within.into_iter().flatten().min(),
        }
    }

    /// The duties that both ask for; of two times the shorter one.
    pub(super) fn and(self, other: Self) -> Self {
        let times = [self.corroborate_within_us, other.corroborate_within_us];
        Self {
            tool_call: self.tool_call || other.tool_call,
            response: self.response || other.response,
            result: self.result || other.result,
            corroborate_within_us: times.into_iter().flatten().min(),
        }
    }

    /// Reads `@keep("tool_call,response,result")`: one or more of the three, each once.
    pub(super) fn keep(&mut self, value: &str) -> Result<(), String> {
        for part in value.split(',') {
            let kept = match part.trim() {
                "tool_call" => &mut self.tool_call,
                "response" => &mut self.response,
                "result" => &mut self.result,
                part => {
                    return Err(format!(
                        "@keep names tool_call, response and result, separated by commas; \
                         found {part:?}"
                    ));
                }
            };
            if std::mem::replace(kept, true) {
                return Err(format!("@keep names {:?} twice", part.trim()));
            }
        }
        Ok(())
    }

    /// Reads `@corroborate("3600")`: seconds.
    pub(super) fn corroborate(&mut self, value: &str) -> Result<(), String> {
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = value.parse::<i64>().ok().filter(|_| digits);
        let seconds = seconds.filter(|seconds| (1..=CORROBORATE_SECONDS_MAX).contains(seconds));
        let Some(seconds) = seconds else {
            return Err(format!(
                "@corroborate wants a number of seconds, 1 to {CORROBORATE_SECONDS_MAX}; \
                 found {value:?}"
            ));
        };
        self.corroborate_within_us = Some(seconds * 1_000_000);
        Ok(())
    }
}
