#define _GNU_SOURCE
#include "private.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define SLOTS_LIMIT 256
#define OBJECTS_LIMIT 16
// PKCS#11 3.0; p11-kit's header stops short of it.
#ifndef CKR_AEAD_DECRYPT_FAILED
#define CKR_AEAD_DECRYPT_FAILED 0x42UL
#endif

struct coffer_token {
    CK_FUNCTION_LIST *module;
    bool is_initialized, has_session, is_logged_in;
    CK_SLOT_ID slot;
    CK_FLAGS flags;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key;
    coffer_token_failure *failure;
};

static coffer_token_result failed(coffer_token *token, const char *function, CK_RV rv, coffer_token_result result) {
    token->failure->function = function;
    snprintf(token->failure->reason, sizeof token->failure->reason, "%s", p11_kit_strerror(rv));
    return result;
}

static coffer_token_result load(coffer_token *token, P11KitUri *uri) {
    p11_kit_be_quiet();
    // Unmanaged: the module has this process to itself.
    token->module = p11_kit_module_load(p11_kit_uri_get_module_path(uri), P11_KIT_MODULE_UNMANAGED | P11_KIT_MODULE_CRITICAL);
    if (!token->module) {
        const char *message = p11_kit_message();
        snprintf(token->failure->reason, sizeof token->failure->reason, "%s", message ? message : "it is no PKCS#11 module");
        return COFFER_TOKEN_NO_MODULE;
    }
    CK_RV rv = p11_kit_module_initialize(token->module);
    if (rv != CKR_OK) return failed(token, "C_Initialize", rv, COFFER_TOKEN_CALL_FAILED);
    token->is_initialized = true;
    return COFFER_TOKEN_OK;
}

static bool fits(coffer_token *token, P11KitUri *uri, CK_SLOT_ID slot, CK_FLAGS *flags) {
    CK_SLOT_ID wanted = p11_kit_uri_get_slot_id(uri);
    CK_TOKEN_INFO info;
    CK_SLOT_INFO place;
    if (wanted != (CK_SLOT_ID)-1 && wanted != slot) return false;
    if (token->module->C_GetSlotInfo(slot, &place) != CKR_OK || !p11_kit_uri_match_slot_info(uri, &place)) return false;
    // A slot that says nothing of its token holds none that could be meant.
    if (token->module->C_GetTokenInfo(slot, &info) != CKR_OK || !(info.flags & CKF_TOKEN_INITIALIZED)) return false;
    *flags = info.flags;
    return p11_kit_uri_match_token_info(uri, &info);
}

static coffer_token_result find_token(coffer_token *token, P11KitUri *uri) {
    CK_INFO info;
    CK_RV rv = token->module->C_GetInfo(&info);
    if (rv != CKR_OK) return failed(token, "C_GetInfo", rv, COFFER_TOKEN_CALL_FAILED);
    if (!p11_kit_uri_match_module_info(uri, &info)) return COFFER_TOKEN_NOT_FOUND;
    CK_SLOT_ID slots[SLOTS_LIMIT];
    CK_ULONG count = SLOTS_LIMIT;
    rv = token->module->C_GetSlotList(CK_TRUE, slots, &count);
    if (rv == CKR_OK && count > SLOTS_LIMIT) rv = CKR_BUFFER_TOO_SMALL;
    if (rv != CKR_OK) return failed(token, "C_GetSlotList", rv, COFFER_TOKEN_CALL_FAILED);
    int found = 0;
    for (CK_ULONG i = 0; i < count; i++) {
        CK_FLAGS flags;
        if (!fits(token, uri, slots[i], &flags)) continue;
        found++;
        token->slot = slots[i];
        token->flags = flags;
    }
    return found == 0 ? COFFER_TOKEN_NOT_FOUND : found > 1 ? COFFER_TOKEN_AMBIGUOUS : COFFER_TOKEN_OK;
}

static coffer_token_result begin_session(coffer_token *token) {
    if (token->flags & CKF_USER_PIN_LOCKED) return COFFER_TOKEN_PIN_LOCKED;
    // A service that is started over and over must not be what locks the token.
    if (token->flags & CKF_USER_PIN_FINAL_TRY) return COFFER_TOKEN_PIN_LAST_TRY;
    CK_RV rv = token->module->C_OpenSession(token->slot, CKF_SERIAL_SESSION, NULL, NULL, &token->session);
    if (rv != CKR_OK) return failed(token, "C_OpenSession", rv, COFFER_TOKEN_CALL_FAILED);
    token->has_session = true;
    return COFFER_TOKEN_OK;
}

static coffer_token_result log_in(coffer_token *token, const uint8_t *pin, size_t count) {
    CK_RV rv = token->module->C_Login(token->session, CKU_USER, (CK_UTF8CHAR *)pin, count);
    switch (rv) {
    case CKR_OK: token->is_logged_in = true; return COFFER_TOKEN_OK;
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE: return failed(token, "C_Login", rv, COFFER_TOKEN_PIN_WRONG);
    case CKR_PIN_LOCKED: return failed(token, "C_Login", rv, COFFER_TOKEN_PIN_LOCKED);
    // Whatever it means, the token may have counted it.
    default: return failed(token, "C_Login", rv, COFFER_TOKEN_LOGIN_FAILED);
    }
}

/// Whether the attribute can be read and has the value.
static bool has(coffer_token *token, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, CK_ULONG wanted, size_t size) {
    union {
        CK_ULONG number;
        CK_BBOOL truth;
    } value = {0};
    CK_ATTRIBUTE attribute = {type, &value, size};
    if (token->module->C_GetAttributeValue(token->session, object, &attribute, 1) != CKR_OK) return false;
    if (attribute.ulValueLen != size) return false;
    return (size == sizeof(CK_BBOOL) ? value.truth : value.number) == wanted;
}
static bool is(coffer_token *token, CK_ATTRIBUTE_TYPE type, CK_BBOOL wanted) {
    return has(token, token->key, type, wanted, sizeof(CK_BBOOL));
}

static coffer_token_result find_key(coffer_token *token, P11KitUri *uri) {
    CK_ULONG attributes = 0, found = 0;
    CK_ATTRIBUTE *wanted = p11_kit_uri_get_attributes(uri, &attributes);
    // One more than are looked at: too many of a name are as unclear as two.
    CK_OBJECT_HANDLE objects[OBJECTS_LIMIT + 1];
    CK_RV rv = token->module->C_FindObjectsInit(token->session, wanted, attributes);
    if (rv != CKR_OK) return failed(token, "C_FindObjectsInit", rv, COFFER_TOKEN_CALL_FAILED);
    // A module may hand them over a few at a time; none means no more.
    CK_ULONG more = 1;
    while (rv == CKR_OK && more > 0 && found <= OBJECTS_LIMIT) {
        CK_ULONG room = OBJECTS_LIMIT + 1 - found;
        more = 0;
        rv = token->module->C_FindObjects(token->session, objects + found, room, &more);
        if (more > room) rv = CKR_BUFFER_TOO_SMALL;
        if (rv == CKR_OK) found += more;
    }
    token->module->C_FindObjectsFinal(token->session);
    if (rv != CKR_OK) return failed(token, "C_FindObjects", rv, COFFER_TOKEN_CALL_FAILED);
    if (found > OBJECTS_LIMIT) return COFFER_TOKEN_KEY_AMBIGUOUS;
    if (found == 0) return COFFER_TOKEN_KEY_NOT_FOUND;
    int secret = 0;
    // A key pair or a certificate may bear the same name.
    for (CK_ULONG i = 0; i < found; i++) {
        if (!has(token, objects[i], CKA_CLASS, CKO_SECRET_KEY, sizeof(CK_ULONG))) continue;
        secret++;
        token->key = objects[i];
    }
    if (secret == 0) return COFFER_TOKEN_KEY_TYPE;
    return secret > 1 ? COFFER_TOKEN_KEY_AMBIGUOUS : COFFER_TOKEN_OK;
}

static coffer_token_result check_key(coffer_token *token) {
    if (!has(token, token->key, CKA_KEY_TYPE, CKK_AES, sizeof(CK_ULONG)) ||
        !has(token, token->key, CKA_VALUE_LEN, 32, sizeof(CK_ULONG)))
        return COFFER_TOKEN_KEY_TYPE;
    if (!is(token, CKA_SENSITIVE, CK_TRUE) || !is(token, CKA_EXTRACTABLE, CK_FALSE)) return COFFER_TOKEN_KEY_NOT_KEPT;
    // Otherwise whoever holds the token uses the key without its PIN.
    if (!is(token, CKA_PRIVATE, CK_TRUE)) return COFFER_TOKEN_KEY_PUBLIC;
    if (!is(token, CKA_ENCRYPT, CK_TRUE) || !is(token, CKA_DECRYPT, CK_TRUE)) return COFFER_TOKEN_KEY_USE;
    return COFFER_TOKEN_OK;
}

coffer_token_result coffer_token_connect(const coffer_token_uri *uri, coffer_token **connected, coffer_token_failure *failure) {
    memset(failure, 0, sizeof *failure);
    coffer_token *token = calloc(1, sizeof *token);
    if (!token) abort();
    token->failure = failure;
    P11KitUri *named = (P11KitUri *)uri;
    *connected = token;
    coffer_token_result result = load(token, named);
    if (result == COFFER_TOKEN_OK) result = find_token(token, named);
    if (result == COFFER_TOKEN_OK) result = begin_session(token);
    return result;
}

coffer_token_result coffer_token_log_in(coffer_token *token, const uint8_t *pin, size_t pin_count, coffer_token_failure *failure) {
    token->failure = failure;
    return log_in(token, pin, pin_count);
}

coffer_token_result coffer_token_use(coffer_token *token, const coffer_token_uri *uri, coffer_token_failure *failure) {
    token->failure = failure;
    coffer_token_result result = find_key(token, (P11KitUri *)uri);
    return result == COFFER_TOKEN_OK ? check_key(token) : result;
}

void coffer_token_close(coffer_token *token) {
    if (token->is_logged_in) token->module->C_Logout(token->session);
    if (token->has_session) token->module->C_CloseSession(token->session);
    if (token->is_initialized) p11_kit_module_finalize(token->module);
    if (token->module) p11_kit_module_release(token->module);
    free(token);
}

static CK_GCM_PARAMS parameters(const uint8_t *nonce, const uint8_t *additional, size_t count) {
    CK_GCM_PARAMS made;
    memset(&made, 0, sizeof made);
    made.pIv = (CK_BYTE *)nonce;
    made.ulIvLen = COFFER_TOKEN_NONCE;
    made.ulIvBits = 8 * COFFER_TOKEN_NONCE;
    made.pAAD = (CK_BYTE *)additional;
    made.ulAADLen = count;
    made.ulTagBits = 8 * COFFER_TOKEN_TAG;
    return made;
}

static coffer_token_result begun(coffer_token *token, const char *function, CK_RV rv) {
    switch (rv) {
    case CKR_OK: return COFFER_TOKEN_OK;
    case CKR_MECHANISM_INVALID:
    case CKR_MECHANISM_PARAM_INVALID: return failed(token, function, rv, COFFER_TOKEN_NO_MECHANISM);
    case CKR_KEY_FUNCTION_NOT_PERMITTED: return failed(token, function, rv, COFFER_TOKEN_KEY_USE);
    default: return failed(token, function, rv, COFFER_TOKEN_CALL_FAILED);
    }
}

coffer_token_result coffer_token_seal(coffer_token *token, uint8_t nonce[COFFER_TOKEN_NONCE], const uint8_t *additional,
                                      size_t additional_count, const uint8_t *input, size_t count, uint8_t *output,
                                      coffer_token_failure *failure) {
    token->failure = failure;
    CK_GCM_PARAMS gcm = parameters(nonce, additional, additional_count);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &gcm, sizeof gcm};
    coffer_token_result result = begun(token, "C_EncryptInit", token->module->C_EncryptInit(token->session, &mechanism, token->key));
    if (result != COFFER_TOKEN_OK) return result;
    CK_ULONG written = count + COFFER_TOKEN_TAG;
    CK_RV rv = token->module->C_Encrypt(token->session, (CK_BYTE *)input, count, output, &written);
    if (rv == CKR_OK && written != count + COFFER_TOKEN_TAG) rv = CKR_DATA_LEN_RANGE;
    return rv == CKR_OK ? COFFER_TOKEN_OK : failed(token, "C_Encrypt", rv, COFFER_TOKEN_CALL_FAILED);
}

coffer_token_result coffer_token_unseal(coffer_token *token, const uint8_t nonce[COFFER_TOKEN_NONCE], const uint8_t *additional,
                                        size_t additional_count, const uint8_t *input, size_t count, uint8_t *output,
                                        coffer_token_failure *failure) {
    token->failure = failure;
    CK_GCM_PARAMS gcm = parameters(nonce, additional, additional_count);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &gcm, sizeof gcm};
    coffer_token_result result = begun(token, "C_DecryptInit", token->module->C_DecryptInit(token->session, &mechanism, token->key));
    if (result != COFFER_TOKEN_OK) return result;
    // Some modules, SoftHSM among them, ask for room for the tag too.
    CK_ULONG written = count;
    CK_RV rv = token->module->C_Decrypt(token->session, (CK_BYTE *)input, count, output, &written);
    switch (rv) {
    case CKR_OK:
        if (written == count - COFFER_TOKEN_TAG) return COFFER_TOKEN_OK;
        return failed(token, "C_Decrypt", CKR_ENCRYPTED_DATA_LEN_RANGE, COFFER_TOKEN_NOT_AUTHENTIC);
    // PKCS#11 before 3.0 has no code for a tag that does not fit: SoftHSM 2.6 answers the third, others the fourth.
    case CKR_AEAD_DECRYPT_FAILED:
    case CKR_ENCRYPTED_DATA_INVALID:
    case CKR_GENERAL_ERROR:
    case CKR_FUNCTION_FAILED: return failed(token, "C_Decrypt", rv, COFFER_TOKEN_NOT_AUTHENTIC);
    default: return failed(token, "C_Decrypt", rv, COFFER_TOKEN_CALL_FAILED);
    }
}

int coffer_token_guard_process(unsigned seconds) {
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0) != 0) return errno;
    alarm(seconds);
    return 0;
}

int coffer_forbid_core_dumps(void) {
    // One byte, not none: at that limit alone the kernel gives nothing to a program that collects dumps either (core(5)).
    struct rlimit least = {1, 1};
    if (setrlimit(RLIMIT_CORE, &least) == 0) return 0;
    // Where nobody may raise a limit of none, the process as a whole is withheld.
    return prctl(PR_SET_DUMPABLE, 0) == 0 ? 0 : errno;
}
