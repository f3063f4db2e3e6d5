//! What codes and types mean, by provider. A code decides before any words do; what is too general to decide (such as
//! `invalid_request_error`) is in [`general`] and counts only after the words.
//!
//! The tables follow the providers' own lists of codes. Codes are compared without regard to upper and lower case.

use super::cause::Cause::{self, *};
use crate::provider::Provider;

type Table = &'static [(&'static str, Cause)];

/// What a code means at a provider, or else everywhere.
pub(super) fn exact(provider: Provider, code: &str) -> Option<Cause> {
    let own: Table = match provider {
        Provider::Gemini | Provider::Vertex => GOOGLE,
        Provider::Bedrock => BEDROCK,
        Provider::DashScope => DASHSCOPE,
        Provider::Qianfan => QIANFAN,
        Provider::Zhipu => ZHIPU,
        Provider::Mistral => MISTRAL,
        Provider::Groq => GROQ,
        Provider::OpenRouter => OPENROUTER,
        _ => &[],
    };
    find(own, code).or_else(|| find(EVERYWHERE, code))
}

/// What a code means if nothing else tells more.
pub(super) fn general(code: &str) -> Option<Cause> {
    find(GENERAL, code)
}

fn find(table: Table, code: &str) -> Option<Cause> {
    table.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, cause)| *cause)
}

/// OpenAI's codes, which most others took over, and those of others that mean the same wherever they occur.
const EVERYWHERE: Table = &[
    ("context_length_exceeded", ContextExceeded),
    ("exceed_context_size_error", ContextExceeded),
    ("string_above_max_length", RequestInvalid),
    ("array_above_max_length", RequestInvalid),
    ("unsupported_parameter", RequestInvalid),
    ("unsupported_value", RequestInvalid),
    ("invalid_value", RequestInvalid),
    ("missing_required_parameter", RequestInvalid),
    ("unknown_parameter", RequestInvalid),
    ("invalid_encrypted_content", StateBound),
    ("previous_response_not_found", StateBound),
    ("content_policy_violation", ContentFiltered),
    ("content_filter", ContentFiltered),
    ("invalid_prompt", ContentFiltered),
    ("moderation_blocked", ContentFiltered),
    ("bio_policy", ContentFiltered),
    ("image_content_policy_violation", ContentFiltered),
    ("ResponsibleAIPolicyViolation", ContentFiltered),
    ("invalid_api_key", AuthInvalid),
    ("incorrect_api_key_error", AuthInvalid),
    ("invalid_authentication_error", AuthInvalid),
    ("invalid_organization", AuthInvalid),
    ("mismatched_project", AuthInvalid),
    ("ip_not_authorized", AuthInvalid),
    ("account_deactivated", AuthAccountDisabled),
    ("organization_disabled", AuthAccountDisabled),
    ("access_terminated_error", AuthAccountDisabled),
    ("unsupported_country_region_territory", Permission),
    ("insufficient_permissions", Permission),
    ("model_not_found", ModelNotFound),
    ("resource_not_found_error", ModelNotFound),
    ("DeploymentNotFound", ModelNotFound),
    ("slow_down", RateBurst),
    ("insufficient_quota", QuotaBalance),
    ("credit_balance_exhausted", QuotaBalance),
    ("billing_not_active", QuotaBalance),
    ("exceeded_current_quota_error", QuotaBalance),
    ("billing_error", QuotaBalance),
    ("organization_spend_limit_exceeded", QuotaCap),
    ("project_spend_limit_exceeded", QuotaCap),
    ("organization_usage_limit_exceeded", QuotaCap),
    ("billing_hard_limit_reached", QuotaCap),
    ("enforced_spend_limit_reached", QuotaCap),
    ("usage_limit_reached", QuotaWindow),
    ("usage_not_included", QuotaPlan),
    ("request_too_large", PayloadTooLarge),
    ("server_is_overloaded", Overloaded),
    ("overloaded_error", Overloaded),
    ("engine_overloaded_error", Overloaded),
    ("service_unavailable_error", Overloaded),
    ("unavailable_error", Overloaded),
    ("timeout_error", Timeout),
    ("client_closed_request", Cancelled),
    // Resellers that run one-api or new-api.
    ("insufficient_user_quota", QuotaBalance),
    ("pre_consume_token_quota_failed", QuotaBalance),
    // Cerebras.
    ("token_quota_exceeded", RateTokens),
    ("token_quota_reached", RateTokens),
    ("request_quota_exceeded", RateRequests),
    ("queue_exceeded", Overloaded),
];

/// Google's `status` and `ErrorInfo.reason`, as far as they decide. Quotas are read in [`super::classify`].
const GOOGLE: Table = &[
    ("API_KEY_INVALID", AuthInvalid),
    ("MODEL_CAPACITY_EXHAUSTED", Overloaded),
    ("QUOTA_EXHAUSTED", RateDaily),
    ("INSUFFICIENT_G1_CREDITS_BALANCE", QuotaBalance),
    ("VALIDATION_REQUIRED", Permission),
    ("SERVICE_DISABLED", Permission),
    ("CONSUMER_SUSPENDED", AuthAccountDisabled),
    ("UNAUTHENTICATED", AuthExpired),
    ("DEADLINE_EXCEEDED", Timeout),
    ("UNAVAILABLE", Overloaded),
    ("CANCELLED", Cancelled),
    // OpenAI's skin over Google's limits: not the empty account that it is at OpenAI.
    ("insufficient_quota", RateRequests),
];

/// Exceptions of the runtime, as `x-amzn-ErrorType`, `__type` or the name of a stream's frame have them.
const BEDROCK: Table = &[
    ("ConflictException", StateConflict),
    ("ServiceQuotaExceededException", QuotaPlan),
    ("UnrecognizedClientException", AuthInvalid),
    ("InvalidSignatureException", AuthInvalid),
    ("ExpiredTokenException", AuthExpired),
    ("ResourceNotFoundException", ModelNotFound),
    ("ModelTimeoutException", Timeout),
    ("ModelNotReadyException", Overloaded),
    ("InternalServerException", Server),
    ("ServiceUnavailableException", Overloaded),
];

/// The native code, and its twin at the OpenAI-compatible address.
const DASHSCOPE: Table = &[
    ("DataInspectionFailed", ContentFiltered),
    ("data_inspection_failed", ContentFiltered),
    ("Arrearage", QuotaBalance),
    ("InvalidApiKey", AuthInvalid),
    ("AccessDenied", Permission),
    ("AccessDenied.Unpurchased", Permission),
    ("Model.AccessDenied", Permission),
    ("Workspace.AccessDenied", Permission),
    ("AllocationQuota.FreeTierOnly", QuotaPlan),
    ("ModelNotFound", ModelNotFound),
    ("Throttling.RateQuota", RateRequests),
    ("limit_requests", RateRequests),
    ("Throttling", RateRequests),
    ("Throttling.AllocationQuota", RateTokens),
    // Not the empty account that it is at OpenAI: it is over within a minute.
    ("insufficient_quota", RateTokens),
    ("Throttling.BurstRate", RateBurst),
    ("limit_burst_rate", RateBurst),
    ("InternalError.Timeout", Timeout),
    ("InternalError", Server),
    ("SystemError", Server),
    ("ModelUnavailable", Overloaded),
    ("ServiceUnavailable", Overloaded),
];

/// Codes of version 2, and numbers of version 1 that come with status 200.
const QIANFAN: Table = &[
    ("malformed_json", RequestInvalid),
    ("invalid_messages", RequestInvalid),
    ("invalid_argument", RequestInvalid),
    ("invalid_model", ModelNotFound),
    ("characters_too_long", ContextExceeded),
    ("tokens_too_long", ContextExceeded),
    ("image_url_unsafe", ContentFiltered),
    ("system_unsafe", ContentFiltered),
    ("user_setting_unsafe", ContentFiltered),
    ("functions_unsafe", ContentFiltered),
    ("unsafe_request", ContentFiltered),
    ("invalid_iam_token", AuthInvalid),
    ("invalid_appid", AuthInvalid),
    ("no_parameter_permission", Permission),
    ("account_overdue", QuotaBalance),
    ("model_offline", ModelNotFound),
    ("rpm_rate_limit_exceeded", RateRequests),
    ("user_rate_limit_exceeded", RateRequests),
    ("tpm_rate_limit_exceeded", RateTokens),
    ("input_tpm_rate_limit_exceeded", RateTokens),
    ("output_tpm_rate_limit_exceeded", RateTokens),
    // The platform is full, not the account.
    ("preemptible_rate_limit_exceeded", Overloaded),
    ("cluster_rate_limit_exceeded", Overloaded),
    ("cluster_rpm_rate_limit_exceeded", Overloaded),
    ("cluster_tpm_rate_limit_exceeded", Overloaded),
    ("Offline_batch_reasoning_refused", Overloaded),
    ("coding_plan_hour_quota_exceeded", QuotaWindow),
    ("coding_plan_week_quota_exceeded", QuotaWindow),
    ("coding_plan_month_quota_exceeded", QuotaWindow),
    ("coding_plan_rate_limit_exceeded", RateRequests),
    ("coding_plan_subscription_expired", QuotaPlan),
    ("internal_error", Server),
    ("dispatch_internal_error", Server),
    ("4", Overloaded),
    ("336100", Overloaded),
    ("6", Permission),
    ("13", AuthInvalid),
    ("14", AuthInvalid),
    ("100", AuthInvalid),
    ("110", AuthInvalid),
    ("111", AuthExpired),
    ("17", RateDaily),
    ("19", QuotaBalance),
    ("18", RateRequests),
    ("336501", RateRequests),
    ("336502", RateTokens),
    ("336003", RequestInvalid),
    ("336007", ContextExceeded),
];

/// Business codes: texts of digits.
const ZHIPU: Table = &[
    ("1000", AuthInvalid),
    ("1001", AuthInvalid),
    ("1002", AuthInvalid),
    ("1003", AuthExpired),
    ("1004", AuthInvalid),
    ("1110", AuthAccountDisabled),
    ("1111", AuthAccountDisabled),
    ("1112", AuthAccountDisabled),
    ("1113", QuotaBalance),
    ("1120", Server),
    ("1121", AuthAccountDisabled),
    ("1210", RequestInvalid),
    ("1211", ModelNotFound),
    ("1212", RequestInvalid),
    ("1213", RequestInvalid),
    ("1214", RequestInvalid),
    ("1215", RequestInvalid),
    ("1220", Permission),
    ("1221", ModelNotFound),
    ("1222", ModelNotFound),
    ("1261", ContextExceeded),
    ("1301", ContentFiltered),
    ("1302", RateConcurrency),
    ("1303", RateRequests),
    ("1304", RateDaily),
    ("1305", Overloaded),
    ("1308", QuotaWindow),
    ("1309", QuotaPlan),
    ("1310", QuotaWindow),
    ("1311", QuotaPlan),
    ("1312", Overloaded),
    ("1313", QuotaPlan),
    ("1200", Server),
    ("1230", Server),
    ("1234", Server),
    ("500", Server),
];

const MISTRAL: Table =
    &[("1300", RateRequests), ("1500", ModelNotFound), ("3051", ContextExceeded), ("3505", Overloaded)];

const GROQ: Table = &[
    // What the model wrote is not what was asked for: it may be at the next try.
    ("json_validate_failed", Server),
    ("tool_use_failed", Server),
    ("blocked_api_access", QuotaCap),
    ("capacity_exceeded", Overloaded),
];

/// `metadata.error_type` and `availability.code`.
const OPENROUTER: Table = &[
    ("max_tokens_exceeded", RequestInvalid),
    ("string_too_long", RequestInvalid),
    ("invalid_prompt", RequestInvalid),
    ("invalid_request", RequestInvalid),
    ("invalid_image", RequestInvalid),
    ("image_too_small", RequestInvalid),
    ("unsupported_image_format", RequestInvalid),
    ("image_not_found", RequestInvalid),
    ("image_download_failed", RequestInvalid),
    ("precondition_failed", RequestInvalid),
    ("unprocessable", RequestInvalid),
    ("image_too_large", PayloadTooLarge),
    ("payload_too_large", PayloadTooLarge),
    ("token_limit_exceeded", QuotaBalance),
    ("payment_required", QuotaBalance),
    ("weight_exceeds_budget", QuotaBalance),
    ("in_flight_budget_exhausted", RateConcurrency),
    ("refusal", ContentFiltered),
    ("flagged_input", ContentFiltered),
    ("wrong_endpoint", ModelNotFound),
    ("no_endpoints", ModelNotFound),
    ("model_deprecated", ModelNotFound),
    ("model_unavailable_upstream", ModelNotFound),
    ("privacy_restricted", ModelNotFound),
    ("constraint_filtered", ModelNotFound),
    ("free_variant_ended", ModelNotFound),
    ("not_found", ModelNotFound),
    ("authentication", AuthInvalid),
    ("permission_denied", Permission),
    ("region_restricted", Permission),
    ("timeout", Timeout),
    ("capacity_exhausted", Overloaded),
    ("provider_overloaded", Overloaded),
    ("temporarily_unavailable", Overloaded),
    ("provider_unavailable", Server),
    ("server", Server),
    ("unmapped", Server),
];

/// Too general to decide before the words are read.
const GENERAL: Table = &[
    ("invalid_request_error", RequestInvalid),
    ("invalid_parameter_error", RequestInvalid),
    ("InvalidParameter", RequestInvalid),
    ("BadRequestError", RequestInvalid),
    ("INVALID_ARGUMENT", RequestInvalid),
    ("FAILED_PRECONDITION", RequestInvalid),
    ("OUT_OF_RANGE", RequestInvalid),
    ("ValidationException", RequestInvalid),
    ("validation_error", RequestInvalid),
    ("authentication_error", AuthInvalid),
    ("AuthenticationError", AuthInvalid),
    ("permission_error", Permission),
    ("permission-denied", Permission),
    ("PERMISSION_DENIED", Permission),
    ("AccessDeniedException", Permission),
    ("not_found_error", ModelNotFound),
    ("NotFoundError", ModelNotFound),
    ("NOT_FOUND", ModelNotFound),
    ("rate_limit_error", RateRequests),
    ("rate_limit_exceeded", RateRequests),
    ("rate_limit_reached_error", RateRequests),
    ("RateLimitReached", RateRequests),
    ("ThrottlingException", RateRequests),
    ("RESOURCE_EXHAUSTED", RateRequests),
    ("requests", RateRequests),
    ("tokens", RateTokens),
    ("conflict", StateConflict),
    ("conflict_error", StateConflict),
    ("ABORTED", StateConflict),
    ("ALREADY_EXISTS", StateConflict),
    ("Timeout", Timeout),
    ("server_error", Server),
    ("api_error", Server),
    ("internal_error", Server),
    ("internal_server_error", Server),
    ("InternalServerError", Server),
    ("INTERNAL", Server),
    ("unexpected_output", Server),
    ("FailedDependency", Server),
    ("ModelErrorException", Server),
    ("ModelStreamErrorException", Server),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_stands_twice_in_a_table() {
        for table in [EVERYWHERE, GOOGLE, BEDROCK, DASHSCOPE, QIANFAN, ZHIPU, MISTRAL, GROQ, OPENROUTER, GENERAL] {
            let mut seen = Vec::new();
            for (code, _) in table {
                let code = code.to_ascii_lowercase();
                assert!(!seen.contains(&code), "{code}");
                seen.push(code);
            }
        }
    }

    #[test]
    fn the_same_word_means_what_its_provider_means() {
        assert_eq!(exact(Provider::OpenAi, "insufficient_quota"), Some(QuotaBalance));
        assert_eq!(exact(Provider::DashScope, "insufficient_quota"), Some(RateTokens));
        assert_eq!(exact(Provider::Gemini, "insufficient_quota"), Some(RateRequests));
        assert_eq!(exact(Provider::OpenAi, "1302"), None);
        assert_eq!(exact(Provider::Zhipu, "1302"), Some(RateConcurrency));
    }
}
