//! What messages mean, where no code tells. Words are the weakest evidence: they change, and they can quote what the
//! caller wrote. So only the beginning of a message is looked at, and what would put an account or a model aside is never
//! read from quoted text, nor from the middle of a message about the request itself: otherwise a caller could bench an
//! account by writing "credit balance is too low" into a request that is refused.

use super::cause::Cause::{self, *};
use super::cause::Scope;
use crate::provider::Provider;

/// How much of a message is looked at, in bytes.
const LOOKED_AT_BYTES: usize = 600;
/// Where words about an account or a model must begin at the latest, in a message about a request.
const BEGINNING_BYTES: usize = 48;

/// A message in lower case, as a whole and without what it quotes.
pub(super) struct Words {
    whole: String,
    unquoted: String,
}

/// Words that occur together in a message, and what they mean.
type Row = (&'static [&'static str], Cause);

impl Words {
    /// The words of a message.
    pub(super) fn of(message: &str) -> Self {
        let whole = message[..message.floor_char_boundary(LOOKED_AT_BYTES)].to_lowercase();
        let unquoted = without_quotes(&whole);
        Self { whole, unquoted }
    }

    /// Whether any of these texts occurs.
    pub(super) fn say(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.whole.contains(text))
    }

    /// What the words mean at this provider, or else everywhere, in an answer with that status.
    pub(super) fn mean(&self, provider: Provider, status: u16) -> Option<(Cause, &'static str)> {
        if self.whole.is_empty() {
            return None;
        }
        let own: &[Row] = match provider {
            Provider::OpenAi => OPENAI,
            Provider::Azure => AZURE,
            Provider::Anthropic => ANTHROPIC,
            Provider::Gemini | Provider::Vertex => GOOGLE,
            Provider::Bedrock => BEDROCK,
            Provider::Moonshot => MOONSHOT,
            Provider::Mistral => MISTRAL,
            Provider::Xai => XAI,
            _ => &[],
        };
        own.iter()
            .chain(EVERYWHERE)
            .find(|row| self.match_row(row, provider, status))
            .map(|(words, cause)| (*cause, words[0]))
    }

    fn match_row(&self, (words, cause): &Row, provider: Provider, status: u16) -> bool {
        // An ordinary limit by the minute at Google and DashScope is told in the words of an empty account at OpenAI.
        let is_vague = provider.is_google() || provider == Provider::DashScope;
        if is_vague
            && *cause == QuotaBalance
            && (words[0].contains("current quota") || words[0].contains("plan and billing"))
        {
            return false;
        }
        if !is_possible(*cause, status) {
            return false;
        }
        if cause.scope() == Scope::Request {
            return words.iter().all(|word| self.whole.contains(word));
        }
        let about_request = matches!(status, 0..=400 | 404..=428);
        words.iter().enumerate().all(|(position, word)| match self.unquoted.find(word) {
            Some(at) => !about_request || position > 0 || at <= BEGINNING_BYTES,
            None => false,
        })
    }

    /// Which limit is meant, of an answer that says that one is reached.
    pub(super) fn limit(&self) -> Option<(Cause, &'static str)> {
        let rows: [(Cause, &[&'static str]); 7] = [
            (RateTooBigOnce, &["request too large", "request is too large for"]),
            (RateDaily, &["per day", "(rpd)", "(tpd)", "(asd)", "tpd:", "rpd:", "daily"]),
            (RateConcurrency, &["concurren", "parallel", "in flight"]),
            (RateBurst, &["increased too quickly", "acceleration limit", "slow down", "ramp up"]),
            (RateSpend, &["spend-based", "spend limit", "spending rate"]),
            (RateTokens, &["token", "(tpm)", "tpm:", "tpm"]),
            (RateRequests, &["requests per", "(rpm)", "rpm", "request", "qps", "rps"]),
        ];
        rows.into_iter()
            .find_map(|(cause, words)| words.iter().find(|word| self.whole.contains(**word)).map(|word| (cause, *word)))
    }

    /// The words name a minute, so a minute is how long it takes at most.
    pub(super) fn name_a_minute(&self) -> bool {
        self.say(&["per min", "(rpm)", "(tpm)", "rpm:", "tpm:", "perminute"])
    }

    /// "Limit 30000, Requested 45000": one request asks for more than all that there is.
    pub(super) fn ask_beyond(&self) -> bool {
        let number = |name: &str| {
            let from = self.whole.find(name)? + name.len();
            let digits = self.whole[from..].trim_start_matches([' ', ':']);
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            digits[..end].parse::<u64>().ok()
        };
        matches!((number("limit "), number("requested ")), (Some(limit), Some(requested)) if requested > limit)
    }
}

/// A cause that answers of that status can have. Words alone never turn a server's fault into a dead account.
fn is_possible(cause: Cause, status: u16) -> bool {
    match status {
        500.. => matches!(
            cause,
            ContextExceeded | Overloaded | Server | Timeout | ModelNotFound | RateConcurrency | Cancelled
        ),
        429 => cause != RequestInvalid,
        _ => true,
    }
}

/// The text without what stands between backquotes, double quotes, or single quotes that are no apostrophes.
fn without_quotes(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let (mut open, mut before) = (None, ' ');
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (open, letter) {
            (Some(quote), letter) if letter == quote => {
                let is_end = quote != '\'' || letters.peek().is_none_or(|next| !next.is_alphanumeric());
                if is_end {
                    open = None;
                }
            }
            (Some(_), _) => {}
            (None, '`' | '"') => open = Some(letter),
            (None, '\'') if !before.is_alphanumeric() => open = Some(letter),
            (None, letter) => left.push(letter),
        }
        before = letter;
    }
    left
}

const OPENAI: &[Row] = &[
    (&["does not exist or you do not have access"], ModelNotFound),
    (&["must be verified to use the model"], ModelNotFound),
    (&["incorrect api key"], AuthInvalid),
    (&["must be a member of an organization"], AuthInvalid),
    (&["missing scopes"], Permission),
    (&["country, region, or territory not supported"], Permission),
    (&["rejected", "safety system"], ContentFiltered),
    (&["violating our usage policy"], ContentFiltered),
];

const AZURE: &[Row] = &[
    (&["content management policy"], ContentFiltered),
    (&["virtual network/firewall"], Permission),
    (&["high demand"], Overloaded),
    (&["exceeded token rate limit"], RateTokens),
    (&["exceeded call rate limit"], RateRequests),
    (&["operation was timeout"], Timeout),
    (&["deployment for this resource does not exist"], ModelNotFound),
];

const ANTHROPIC: &[Row] = &[
    (&["exceed context limit"], ContextExceeded),
    (&["you have reached your specified", "usage limits"], QuotaCap),
    (&["output blocked by content filtering"], ContentFiltered),
    (&["signature", "thinking"], StateBound),
    (&["only authorized for use with claude code"], Permission),
    (&["third-party app"], Permission),
    (&["extra usage is required"], QuotaPlan),
    (&["acceleration limit"], RateBurst),
    (&["oauth token has been revoked"], AuthInvalid),
];

const GOOGLE: &[Row] = &[
    (&["api key not valid"], AuthInvalid),
    (&["api key expired"], AuthInvalid),
    (&["reported as leaked"], AuthAccountDisabled),
    (&["user location is not supported"], Permission),
    (&["free tier", "enable billing"], QuotaPlan),
    (&["enable billing"], QuotaPlan),
    (&["thought_signature"], StateBound),
    (&["prepay", "credits"], QuotaBalance),
    (&["exceeded the provisioned throughput"], RateTokens),
    (&["resource exhausted, please try again later"], Overloaded),
    (&["model is overloaded"], Overloaded),
    (&["is not found for api version"], ModelNotFound),
];

const BEDROCK: &[Row] = &[
    (&["too many input tokens"], ContextExceeded),
    (&["invocation of model", "on-demand throughput"], ModelNotFound),
    (&["security token", "expired"], AuthExpired),
    (&["security token", "invalid"], AuthInvalid),
    (&["signature expired"], AuthInvalid),
    (&["too many tokens per day"], RateDaily),
    (&["too many tokens"], RateTokens),
];

const MOONSHOT: &[Row] = &[
    (&["high risk"], ContentFiltered),
    (&["membership benefits"], QuotaPlan),
    (&["usage limit for this"], QuotaWindow),
    (&["only available for coding agents"], Permission),
    (&["input token length too long"], ContextExceeded),
    (&["receiving too many requests"], Overloaded),
];

const MISTRAL: &[Row] = &[
    (&["service tier capacity exceeded"], Overloaded),
    (&["invalid model"], ModelNotFound),
    (&["too large for model with"], ContextExceeded),
    (&["monthly", "token"], QuotaWindow),
];

const XAI: &[Row] = &[
    (&["incorrect api key"], AuthInvalid),
    (&["safety"], ContentFiltered),
    (&["used all available credits"], QuotaBalance),
    (&["monthly spending limit"], QuotaCap),
];

/// Last resort, for those who take over the words of others. Disabled accounts come before empty ones.
const EVERYWHERE: &[Row] = &[
    (&["maximum context length"], ContextExceeded),
    (&["context_length_exceeded"], ContextExceeded),
    (&["exceeds the context window"], ContextExceeded),
    (&["prompt is too long"], ContextExceeded),
    (&["input is too long"], ContextExceeded),
    (&["exceeds the maximum number of tokens allowed"], ContextExceeded),
    (&["longer than the model's context length"], ContextExceeded),
    (&["exceed context limit"], ContextExceeded),
    (&["exceeds the available context size"], ContextExceeded),
    (&["input tokens exceed the configured limit"], ContextExceeded),
    (&["exceeded model token limit"], ContextExceeded),
    (&["input length should be"], ContextExceeded),
    (&["maximum prompt length is"], ContextExceeded),
    (&["inputs tokens + max_new_tokens must be"], ContextExceeded),
    (&["current length is", "while limit is"], ContextExceeded),
    (&["exceed_context_size_error"], ContextExceeded),
    (&["prompt contains", "too large for model"], ContextExceeded),
    (&["organization has been disabled"], AuthAccountDisabled),
    (&["has been deactivated"], AuthAccountDisabled),
    (&["access terminated"], AuthAccountDisabled),
    (&["consumer_suspended"], AuthAccountDisabled),
    (&["reported as leaked"], AuthAccountDisabled),
    (&["credit balance is too low"], QuotaBalance),
    (&["insufficient balance"], QuotaBalance),
    (&["insufficient_balance"], QuotaBalance),
    (&["insufficient credits"], QuotaBalance),
    (&["exceeded your current quota"], QuotaBalance),
    (&["check your plan and billing"], QuotaBalance),
    (&["used all available credits"], QuotaBalance),
    (&["arrear"], QuotaBalance),
    (&["overdue"], QuotaBalance),
    (&["account is not active"], QuotaBalance),
    (&["out of credits"], QuotaBalance),
    (&["payment required"], QuotaBalance),
    (&["user quota is not enough"], QuotaBalance),
    // In Chinese: in arrears; insufficient balance; please top up; the user's quota is not enough.
    (&["\u{6b20}\u{8d39}"], QuotaBalance),
    (&["\u{4f59}\u{989d}\u{4e0d}\u{8db3}"], QuotaBalance),
    (&["\u{8bf7}\u{5145}\u{503c}"], QuotaBalance),
    (&["\u{989d}\u{5ea6}\u{4e0d}\u{8db3}"], QuotaBalance),
    (&["billing hard limit"], QuotaCap),
    (&["monthly spending limit"], QuotaCap),
    (&["regain access"], QuotaCap),
    (&["account", "suspended"], QuotaBalance),
    (&["weekly limit"], QuotaWindow),
    (&["weekly usage"], QuotaWindow),
    (&["monthly limit"], QuotaWindow),
    (&["calls / month"], QuotaWindow),
    (&["5-hour"], QuotaWindow),
    (&["five_hour"], QuotaWindow),
    (&["usage limit"], QuotaWindow),
    (&["quota", "hour"], QuotaWindow),
    (&["quota", "week"], QuotaWindow),
    (&["quota", "month"], QuotaWindow),
    (&["incorrect api key"], AuthInvalid),
    (&["invalid api key"], AuthInvalid),
    (&["invalid x-api-key"], AuthInvalid),
    (&["authentication fails"], AuthInvalid),
    (&["token has expired"], AuthExpired),
    (&["token expired"], AuthExpired),
    (&["no available channel"], Overloaded),
    (&["overloaded"], Overloaded),
    (&["loading model"], Overloaded),
    (&["server busy"], Overloaded),
    (&["model", "does not exist"], ModelNotFound),
    (&["model", "not found"], ModelNotFound),
    (&["request entity too large"], PayloadTooLarge),
    (&["payload too large"], PayloadTooLarge),
    (&["content filter"], ContentFiltered),
    (&["content policy"], ContentFiltered),
    (&["gateway time-out"], Timeout),
    (&["gateway timeout"], Timeout),
    (&["timed out"], Timeout),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(message: &str, provider: Provider, status: u16) -> Option<Cause> {
        Words::of(message).mean(provider, status).map(|(cause, _)| cause)
    }

    /// U-03: what a caller wrote, repeated by the provider, benches nobody.
    #[test]
    fn u_03_quoted_words_are_not_the_provider_s() {
        for echoed in [
            "Invalid value: 'credit balance is too low'. Supported values are: 'a'.",
            "unknown field \"insufficient balance\"",
            "The parameter `account has been deactivated` is not known",
            "Unknown name \"model not found, overloaded, api key expired\": Cannot find field.",
            "messages.0.content: something that goes on for a while, and then says your credit balance is too low",
        ] {
            for provider in Provider::ALL {
                let cause = meant(echoed, provider, 400);
                assert!(cause.is_none_or(|cause| cause.scope() == Scope::Request), "{provider:?} {echoed}: {cause:?}");
            }
        }
        let real = "Your credit balance is too low to access the Anthropic API.";
        assert_eq!(meant(real, Provider::Anthropic, 400), Some(QuotaBalance));
        let (real, status) = ("This organization has been disabled.", 400);
        assert_eq!(meant(real, Provider::Anthropic, status), Some(AuthAccountDisabled));
    }

    #[test]
    fn apostrophes_quote_nothing() {
        assert_eq!(without_quotes("the model's 'x y' and `z` isn't \"q\"."), "the model's  and  isn't .");
        assert_eq!(without_quotes("open 'quote to the end"), "open ");
    }

    #[test]
    fn the_current_quota_is_no_balance_at_google_and_alibaba() {
        let message = "You exceeded your current quota, please check your plan and billing details.";
        assert_eq!(meant(message, Provider::OpenAi, 429), Some(QuotaBalance));
        assert_eq!(meant(message, Provider::Gemini, 429), None);
        assert_eq!(meant(message, Provider::DashScope, 429), None);
    }

    #[test]
    fn limits_are_told_apart() {
        let check =
            |message: &str, cause: Cause| assert_eq!(Words::of(message).limit().map(|found| found.0), Some(cause));
        check("on requests per min (RPM): Limit 3, Used 3, Requested 1.", RateRequests);
        check("on tokens per min (TPM): Limit 3, Used 3", RateTokens);
        check("on tokens per day (TPD): Limit 3", RateDaily);
        check("Request too large for m on tokens per min", RateTooBigOnce);
        check("reached organization max concurrency: 3", RateConcurrency);
        check("Too many requests for team", RateRequests);
        assert!(Words::of("Limit 30000, Requested 45000").ask_beyond());
        assert!(!Words::of("Limit 30000, Used 29000, Requested 4500").ask_beyond());
    }
}
