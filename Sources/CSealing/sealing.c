#include "CSealing.h"
#include <CCryptoBoringSSL_aead.h>
#include <CCryptoBoringSSL_aes.h>
#include <CCryptoBoringSSL_digest.h>
#include <CCryptoBoringSSL_err.h>
#include <CCryptoBoringSSL_hkdf.h>
#include <CCryptoBoringSSL_mem.h>
#include <CCryptoBoringSSL_sha.h>
#include <stdlib.h>
#include <string.h>

struct coffer_aead { EVP_AEAD_CTX context; };
struct coffer_xaes { AES_KEY key; uint8_t k1[16]; };

enum { key_bytes = 32, nonce_bytes = 12, tag_bytes = 16 };

static void start(EVP_AEAD_CTX *context, const uint8_t *key) {
    if (!EVP_AEAD_CTX_init(context, EVP_aead_aes_256_gcm(), key, key_bytes, tag_bytes, NULL)) abort();
}

static void *memory(size_t count) {
    void *memory = calloc(1, count);
    if (memory == NULL) abort();
    return memory;
}

coffer_aead *coffer_aead_new(const uint8_t *key) {
    coffer_aead *aead = memory(sizeof *aead);
    start(&aead->context, key);
    return aead;
}

void coffer_aead_free(coffer_aead *aead) {
    EVP_AEAD_CTX_cleanup(&aead->context);
    OPENSSL_cleanse(aead, sizeof *aead);
    free(aead);
}

#ifdef COFFER_NULL_CIPHER
#warning "COFFER_NULL_CIPHER: this build encrypts nothing. It measures what encryption costs and must never hold data."
static int seal(const EVP_AEAD_CTX *context, uint8_t *output, uint8_t *tag, const uint8_t *nonce, const uint8_t *input,
                size_t count, const uint8_t *additional, size_t additional_count) {
    if (output != input && count > 0) memcpy(output, input, count);
    memset(tag, 0, tag_bytes);
    return 1;
}

static int open(const EVP_AEAD_CTX *context, uint8_t *output, const uint8_t *nonce, const uint8_t *input, size_t count,
                const uint8_t *tag, const uint8_t *additional, size_t additional_count) {
    if (output != input && count > 0) memcpy(output, input, count);
    return 1;
}
#else
static int seal(const EVP_AEAD_CTX *context, uint8_t *output, uint8_t *tag, const uint8_t *nonce, const uint8_t *input,
                size_t count, const uint8_t *additional, size_t additional_count) {
    size_t written = 0;
    return EVP_AEAD_CTX_seal_scatter(context, output, tag, &written, tag_bytes, nonce, nonce_bytes, input, count, NULL,
                                     0, additional, additional_count) &&
           written == tag_bytes;
}

static int open(const EVP_AEAD_CTX *context, uint8_t *output, const uint8_t *nonce, const uint8_t *input, size_t count,
                const uint8_t *tag, const uint8_t *additional, size_t additional_count) {
    int opened = EVP_AEAD_CTX_open_gather(context, output, nonce, nonce_bytes, input, count, tag, tag_bytes, additional,
                                          additional_count);
    // A refusal leaves an entry in the thread's error queue, which nobody reads.
    if (!opened) ERR_clear_error();
    return opened;
}
#endif

int coffer_aead_seal(const coffer_aead *aead, uint8_t *output, uint8_t *tag, const uint8_t *nonce, const uint8_t *input,
                     size_t count, const uint8_t *additional, size_t additional_count) {
    return seal(&aead->context, output, tag, nonce, input, count, additional, additional_count);
}

int coffer_aead_open(const coffer_aead *aead, uint8_t *output, const uint8_t *nonce, const uint8_t *input, size_t count,
                     const uint8_t *tag, const uint8_t *additional, size_t additional_count) {
    return open(&aead->context, output, nonce, input, count, tag, additional, additional_count);
}

int coffer_aead_seal_once(const uint8_t *key, uint8_t *output, uint8_t *tag, const uint8_t *nonce, const uint8_t *input,
                          size_t count, const uint8_t *additional, size_t additional_count) {
    EVP_AEAD_CTX context;
    start(&context, key);
    int sealed = seal(&context, output, tag, nonce, input, count, additional, additional_count);
    EVP_AEAD_CTX_cleanup(&context);
    OPENSSL_cleanse(&context, sizeof context);
    return sealed;
}

int coffer_aead_open_once(const uint8_t *key, uint8_t *output, const uint8_t *nonce, const uint8_t *input, size_t count,
                          const uint8_t *tag, const uint8_t *additional, size_t additional_count) {
    EVP_AEAD_CTX context;
    start(&context, key);
    int opened = open(&context, output, nonce, input, count, tag, additional, additional_count);
    EVP_AEAD_CTX_cleanup(&context);
    OPENSSL_cleanse(&context, sizeof context);
    return opened;
}

coffer_xaes *coffer_xaes_new(const uint8_t *key) {
    coffer_xaes *xaes = memory(sizeof *xaes);
    uint8_t block[16] = {0};
    if (AES_set_encrypt_key(key, 8 * key_bytes, &xaes->key) != 0) abort();
    AES_encrypt(block, block, &xaes->key);
    // K1 is the block doubled in GF(2^128) (NIST SP 800-38B, 6.1), without a branch on its first bit.
    for (int i = 0; i < 15; i++) xaes->k1[i] = (uint8_t)(block[i] << 1 | block[i + 1] >> 7);
    xaes->k1[15] = (uint8_t)(block[15] << 1 ^ (0x87 & -(block[0] >> 7)));
    OPENSSL_cleanse(block, sizeof block);
    return xaes;
}

void coffer_xaes_free(coffer_xaes *xaes) {
    OPENSSL_cleanse(xaes, sizeof *xaes);
    free(xaes);
}

// The key of one message: two CMAC blocks over counter (16 bit) | "X" | 0 | the nonce's first 12 bytes.
static void message_key(const coffer_xaes *xaes, const uint8_t *nonce, uint8_t key[key_bytes]) {
    for (int counter = 1; counter <= 2; counter++) {
        uint8_t *block = key + 16 * (counter - 1);
        uint8_t head[4] = {0, (uint8_t)counter, 'X', 0};
        memcpy(block, head, 4);
        memcpy(block + 4, nonce, 12);
        for (int i = 0; i < 16; i++) block[i] ^= xaes->k1[i];
        AES_encrypt(block, block, &xaes->key);
    }
}

int coffer_xaes_seal(const coffer_xaes *xaes, uint8_t *output, uint8_t *tag, const uint8_t *nonce, const uint8_t *input,
                     size_t count, const uint8_t *additional, size_t additional_count) {
    uint8_t key[key_bytes];
    message_key(xaes, nonce, key);
    int sealed = coffer_aead_seal_once(key, output, tag, nonce + 12, input, count, additional, additional_count);
    OPENSSL_cleanse(key, sizeof key);
    return sealed;
}

int coffer_xaes_open(const coffer_xaes *xaes, uint8_t *output, const uint8_t *nonce, const uint8_t *input, size_t count,
                     const uint8_t *tag, const uint8_t *additional, size_t additional_count) {
    uint8_t key[key_bytes];
    message_key(xaes, nonce, key);
    int opened = coffer_aead_open_once(key, output, nonce + 12, input, count, tag, additional, additional_count);
    OPENSSL_cleanse(key, sizeof key);
    return opened;
}

int coffer_hkdf(uint8_t *output, size_t count, const uint8_t *secret, size_t secret_count, const uint8_t *salt,
                size_t salt_count, const uint8_t *info, size_t info_count) {
    return HKDF(output, count, EVP_sha256(), secret, secret_count, salt, salt_count, info, info_count);
}

void coffer_sha256(uint8_t *output, const uint8_t *input, size_t count) { SHA256(input, count, output); }
