// A PKCS#11 module with one token and one key that behaves as FAULTY_TOKEN says: the refusals that no software token makes
// at will. Each C_Login adds a line to the file FAULTY_TOKEN_LOG names. RootKeyFaultTests builds it.
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is(const char *fault) {
    const char *chosen = getenv("FAULTY_TOKEN");
    return chosen && strcmp(chosen, fault) == 0;
}

static CK_RV done(CK_SESSION_HANDLE session) { return session ? CKR_OK : CKR_SESSION_HANDLE_INVALID; }
static CK_RV initialize(void *arguments) {
    // It holds every descriptor of ours until it ends.
    if (is("helper") && fork() == 0) {
        sleep(300);
        _exit(0);
    }
    return arguments ? CKR_ARGUMENTS_BAD : CKR_OK;
}
static CK_RV finalize(void *reserved) {
    if (is("crash at the end")) abort();
    return reserved ? CKR_ARGUMENTS_BAD : CKR_OK;
}

static CK_RV get_info(CK_INFO *info) {
    memset(info, 0, sizeof *info);
    return CKR_OK;
}
static CK_RV get_slot_list(CK_BBOOL present, CK_SLOT_ID *slots, CK_ULONG *count) {
    if (present && slots) slots[0] = 1;
    *count = is("many slots") ? 100000 : 1;
    return CKR_OK;
}
static CK_RV get_slot_info(CK_SLOT_ID slot, CK_SLOT_INFO *info) {
    memset(info, ' ', sizeof *info);
    return slot == 1 ? CKR_OK : CKR_SLOT_ID_INVALID;
}
static CK_RV get_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info) {
    memset(info, ' ', sizeof *info);
    info->flags = CKF_TOKEN_INITIALIZED;
    if (is("marked as locked")) info->flags |= CKF_USER_PIN_LOCKED;
    if (is("last try")) info->flags |= CKF_USER_PIN_FINAL_TRY;
    return slot == 1 ? CKR_OK : CKR_SLOT_ID_INVALID;
}
static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify, CK_SESSION_HANDLE *session) {
    *session = 1;
    return slot == 1 && flags && !application && !notify ? CKR_OK : CKR_ARGUMENTS_BAD;
}
static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG count) {
    const char *path = getenv("FAULTY_TOKEN_LOG");
    int log = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (log < 0 || write(log, "login\n", 6) != 6) return CKR_GENERAL_ERROR;
    close(log);
    if (is("crash")) abort();
    if (is("device")) return CKR_DEVICE_ERROR;
    if (is("talk")) write(STDOUT_FILENO, "\0spoken\n", 8);
    for (int i = 0; is("talk on") && i < 20000; i++) write(STDERR_FILENO, "a line of many\n", 15);
    if (is("wrong")) return CKR_PIN_INCORRECT;
    if (is("locked")) return CKR_PIN_LOCKED;
    return user == CKU_USER && pin && count ? done(session) : CKR_ARGUMENTS_BAD;
}

static int is_found;
static CK_RV find_begin(CK_SESSION_HANDLE session, CK_ATTRIBUTE *wanted, CK_ULONG count) {
    is_found = 0;
    return wanted && count ? done(session) : CKR_ARGUMENTS_BAD;
}
static CK_RV find(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG limit, CK_ULONG *count) {
    *count = limit && is_found < (is("many keys") ? 3 : 1) ? 1 : 0;
    objects[0] = 7;
    is_found++;
    return done(session);
}
static CK_RV get_attribute(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *attribute, CK_ULONG count) {
    CK_ULONG number = 0;
    CK_BBOOL truth = CK_TRUE;
    switch (attribute->type) {
    case CKA_CLASS: number = CKO_SECRET_KEY; break;
    case CKA_KEY_TYPE: number = CKK_AES; break;
    case CKA_VALUE_LEN: number = 32; break;
    case CKA_EXTRACTABLE: truth = CK_FALSE; break;
    case CKA_PRIVATE: truth = !is("public"); break;
    case CKA_DECRYPT: truth = !is("one way"); break;
    case CKA_SENSITIVE:
        if (is("silent")) return CKR_ATTRIBUTE_TYPE_INVALID;
        break;
    default: break;
    }
    if (object != 7 || count != 1) return CKR_ARGUMENTS_BAD;
    if (attribute->ulValueLen == sizeof number) memcpy(attribute->pValue, &number, sizeof number);
    if (attribute->ulValueLen == sizeof truth) memcpy(attribute->pValue, &truth, sizeof truth);
    return done(session);
}

static CK_RV begin(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key) {
    if (is("crash later")) abort();
    if (is("no mechanism") || mechanism->mechanism != CKM_AES_GCM) return CKR_MECHANISM_INVALID;
    // As tokens do that make nonces of their own.
    if (is("own nonce")) memset(((CK_GCM_PARAMS *)mechanism->pParameter)->pIv, 0x5a, 12);
    return key == 7 ? done(session) : CKR_KEY_HANDLE_INVALID;
}
static CK_RV encrypt(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG count, CK_BYTE *sealed, CK_ULONG *written) {
    memcpy(sealed, data, count);
    memset(sealed + count, 0, 16);
    *written = count + 16;
    return done(session);
}
static CK_RV decrypt(CK_SESSION_HANDLE session, CK_BYTE *sealed, CK_ULONG count, CK_BYTE *data, CK_ULONG *written) {
    memcpy(data, sealed, count - 16);
    if (is("other bytes")) data[0] ^= 1;
    *written = count - 16;
    return done(session);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list) {
    static CK_FUNCTION_LIST functions;
    functions.version.major = 2;
    functions.version.minor = 40;
    functions.C_Initialize = initialize;
    functions.C_Finalize = finalize;
    functions.C_GetInfo = get_info;
    functions.C_GetFunctionList = C_GetFunctionList;
    functions.C_GetSlotList = get_slot_list;
    functions.C_GetSlotInfo = get_slot_info;
    functions.C_GetTokenInfo = get_token_info;
    functions.C_OpenSession = open_session;
    functions.C_CloseSession = done;
    functions.C_Login = login;
    functions.C_Logout = done;
    functions.C_FindObjectsInit = find_begin;
    functions.C_FindObjects = find;
    functions.C_FindObjectsFinal = done;
    functions.C_GetAttributeValue = get_attribute;
    functions.C_EncryptInit = begin;
    functions.C_Encrypt = encrypt;
    functions.C_DecryptInit = begin;
    functions.C_Decrypt = decrypt;
    *list = &functions;
    return CKR_OK;
}
