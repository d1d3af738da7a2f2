// JSON for the folds: simdjson's first stage behind a C interface, and a grammar check over all of a payload.
//
// Why a shim: On-Demand is C++ templates and does not validate what it skips, while a payload is JSON here only if all
// of it is (RFC 8259), and only if PostgreSQL's jsonb can hold it: no \u0000, no lone surrogate, no number beyond
// numeric's range. So the shim runs simdjson's vectorised first stage (UTF-8, string boundaries, positions of the
// tokens) and walks every token itself. C++ and its exceptions stay inside.
#ifndef REFOLD_SIMDJSON_SHIM_H
#define REFOLD_SIMDJSON_SHIM_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Working memory of one decoder, kept from call to call. For one thread at a time.
typedef struct refold_parser refold_parser;

refold_parser *refold_parser_create(void);
void refold_parser_destroy(refold_parser *parser);

/// Bytes of a payload, or of the parser's memory (valid until its next call). `start` is null when absent.
typedef struct refold_bytes {
    const uint8_t *start;
    size_t count;
} refold_bytes;

enum refold_json_error {
    REFOLD_JSON_OK = 0,
    REFOLD_JSON_INVALID = 1,         // not JSON in UTF-8, or not all of it
    REFOLD_JSON_UNREPRESENTABLE = 2, // JSON that jsonb or text cannot hold; see `problem`
    REFOLD_JSON_NOT_AN_OBJECT = 3,
    REFOLD_JSON_TENANT_MISMATCH = 4,
    REFOLD_JSON_DEVICE_MISMATCH = 5,
    REFOLD_JSON_MISSING_FIELD = 6,   // see `field`
    REFOLD_JSON_INVALID_TYPE = 7,    // see `field`
};

/// Why jsonb or text cannot hold a payload.
enum refold_json_problem {
    REFOLD_PROBLEM_NONE = 0,
    REFOLD_PROBLEM_NUL = 1,
    REFOLD_PROBLEM_SURROGATE = 2,
    REFOLD_PROBLEM_NUMBER = 3,
    REFOLD_PROBLEM_DEPTH = 4,
};

enum refold_message_kind {
    REFOLD_TELEMETRY = 0,
    REFOLD_HEARTBEAT = 1,
    REFOLD_SHADOW = 2,
    REFOLD_ACK = 3,
    REFOLD_OTA = 4,
    REFOLD_CONNECTION = 5,
    REFOLD_REJECTION = 6,
    REFOLD_KIND_COUNT
};

enum refold_field {
    REFOLD_FIELD_TENANT_ID = 0,
    REFOLD_FIELD_DEVICE_ID,
    REFOLD_FIELD_TS,
    REFOLD_FIELD_SITE_ID,
    REFOLD_FIELD_SEQ,
    REFOLD_FIELD_METRICS,
    REFOLD_FIELD_VERSION,
    REFOLD_FIELD_REPORTED,
    REFOLD_FIELD_COMMAND_ID,
    REFOLD_FIELD_STATUS,
    REFOLD_FIELD_DETAILS,
    REFOLD_FIELD_CAMPAIGN_ID,
    REFOLD_FIELD_PROGRESS,
    REFOLD_FIELD_ERROR,
    REFOLD_FIELD_REJECTED,
    REFOLD_FIELD_COUNT
};

/// A decoded payload. Strings are unescaped; objects are as they stand in the payload.
typedef struct refold_message {
    uint8_t error;
    uint8_t problem;
    /// The field at fault, REFOLD_FIELD_COUNT when none is.
    uint8_t field;
    /// seq, version, campaign_id or count, where `has_integer`.
    uint8_t has_integer;
    uint8_t has_progress;
    int64_t integer;
    /// 0 to 100.
    double progress;
    refold_bytes site_id;
    /// Of an OTA report: absent unless it is an integer or a string.
    refold_bytes command_id;
    refold_bytes status;
    /// `error` of an OTA report.
    refold_bytes error_text;
    /// metrics, reported or details.
    refold_bytes object;
    /// A digest of the metrics' names in their order; 0 when names have escapes, so that nothing is known.
    uint64_t shape;
} refold_message;

/// Decodes a device's payload of the given kind. `tenant` and `device` are the topic's.
/// Nothing behind `payload[count - 1]` is read. An error is in `out->error`; what else is in `out` then means nothing.
void refold_decode(
    refold_parser *parser, int kind, const uint8_t *payload, size_t count, const uint8_t *tenant, size_t tenant_count,
    const uint8_t *device, size_t device_count, refold_message *out);

/// Whether all of `payload` is JSON that jsonb can hold. A value of any kind. Returns a refold_json_error.
int refold_check_json(refold_parser *parser, const uint8_t *payload, size_t count, uint8_t *problem);

/// Objects merge by name, `newer` winning. Both must have been accepted before. The result lies in the parser's memory
/// until its next call, or is `newer` itself when nothing of `older` remains (then `*only_newer` is 1), which is also
/// the answer when the merged object would be larger than `limit` bytes, in JSON or as PostgreSQL writes it. `*weight`:
/// what the result takes, its numbers written out.
refold_bytes refold_merge_objects(
    refold_parser *parser, refold_bytes older, refold_bytes newer, size_t limit, int *only_newer,
    size_t *weight);

#ifdef __cplusplus
}
#endif
#endif
