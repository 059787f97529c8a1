#ifndef COFFER_CTOKEN_H
#define COFFER_CTOKEN_H
#include <stddef.h>
#include <stdint.h>

// One AES-256 key in a PKCS#11 token, used for one message: libp11-kit reads the URI and loads the module, this packs
// the calls. Nothing here tries anything twice, a PIN least of all.

/// A URI as RFC 7512 has it, read.
typedef struct coffer_token_uri coffer_token_uri;

/// NULL when it is none; `*problem` then says why, without a piece of the text.
coffer_token_uri *coffer_token_uri_parse(const char *text, const char **problem);
void coffer_token_uri_free(coffer_token_uri *uri);
/// NULL when the URI does not say; otherwise it lives as long as the URI.
const char *coffer_token_uri_module_path(const coffer_token_uri *uri);
const char *coffer_token_uri_pin_source(const coffer_token_uri *uri);
/// Whether the PIN itself stands in it.
int coffer_token_uri_has_pin(const coffer_token_uri *uri);
/// Whether it has a part of its path that nobody would heed.
int coffer_token_uri_has_unknown(const coffer_token_uri *uri);
/// Whether it names an object, by label or identifier.
int coffer_token_uri_names_object(const coffer_token_uri *uri);

typedef enum {
    COFFER_TOKEN_OK,
    /// The module's file cannot be loaded; `reason` says what the loader said.
    COFFER_TOKEN_NO_MODULE,
    COFFER_TOKEN_NOT_FOUND,
    /// More than one token fits.
    COFFER_TOKEN_AMBIGUOUS,
    COFFER_TOKEN_PIN_WRONG,
    COFFER_TOKEN_PIN_LOCKED,
    /// The token took no decision on the PIN that is known here, and may have counted it.
    COFFER_TOKEN_LOGIN_FAILED,
    /// The token says that one more wrong PIN locks it; it was not asked.
    COFFER_TOKEN_PIN_LAST_TRY,
    COFFER_TOKEN_KEY_NOT_FOUND,
    COFFER_TOKEN_KEY_AMBIGUOUS,
    /// No AES key of 256 bits.
    COFFER_TOKEN_KEY_TYPE,
    /// Not sensitive, or extractable, or silent about it.
    COFFER_TOKEN_KEY_NOT_KEPT,
    /// It can be used without the PIN.
    COFFER_TOKEN_KEY_PUBLIC,
    /// It may not encrypt and decrypt.
    COFFER_TOKEN_KEY_USE,
    COFFER_TOKEN_NO_MECHANISM,
    /// The message was changed, or sealed by another key or for another use.
    COFFER_TOKEN_NOT_AUTHENTIC,
    /// `function` failed with `reason`.
    COFFER_TOKEN_CALL_FAILED,
} coffer_token_result;

typedef struct {
    /// The call of PKCS#11 that failed; NULL when none did.
    const char *function;
    char reason[256];
} coffer_token_failure;

/// A session with one token.
typedef struct coffer_token coffer_token;

/// Loads the module, finds the token and begins a session. `*token` is to be closed whatever the result.
coffer_token_result coffer_token_connect(const coffer_token_uri *uri, coffer_token **token, coffer_token_failure *failure);
/// The one call that a token may count. `pin` is not kept.
coffer_token_result coffer_token_log_in(coffer_token *token, const uint8_t *pin, size_t pin_count, coffer_token_failure *failure);
/// Finds the key that the URI names, and checks what it is.
coffer_token_result coffer_token_use(coffer_token *token, const coffer_token_uri *uri, coffer_token_failure *failure);
/// Logs out, ends the session, and finalizes and unloads the module.
void coffer_token_close(coffer_token *token);

#define COFFER_TOKEN_NONCE 12
#define COFFER_TOKEN_TAG 16

/// AES-256-GCM of `count` bytes to `output`, which takes `count` and a tag. A token that insists on a nonce of its own puts it in place
/// of the one given.
coffer_token_result coffer_token_seal(coffer_token *token, uint8_t nonce[COFFER_TOKEN_NONCE], const uint8_t *additional,
                                      size_t additional_count, const uint8_t *input, size_t count, uint8_t *output,
                                      coffer_token_failure *failure);
/// Opens `count` bytes, the last 16 of which are the tag. `output` takes `count` bytes too, and holds 16 less.
coffer_token_result coffer_token_unseal(coffer_token *token, const uint8_t nonce[COFFER_TOKEN_NONCE], const uint8_t *additional,
                                        size_t additional_count, const uint8_t *input, size_t count, uint8_t *output,
                                        coffer_token_failure *failure);

/// For a process that will hold a PIN: nothing of its memory is written to a disk when it dies, no debugger of the same
/// user gets in, and it ends after `seconds` whatever becomes of who started it. Returns 0 or an errno.
int coffer_token_guard_process(unsigned seconds);

/// For a process that holds a root key: nothing of its memory is written to a disk when it dies. Returns 0 or an errno.
int coffer_forbid_core_dumps(void);
#endif
