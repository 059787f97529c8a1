#ifndef COFFER_CSEALING_H
#define COFFER_CSEALING_H
#include <stddef.h>
#include <stdint.h>

// The few functions of BoringSSL (as swift-crypto carries it) that Coffer seals with, without BoringSSL's headers: a
// Swift module that imports those cannot be used beside one that imports OpenSSL's, because both define the same names.

/// AES-256-GCM under one key with the key schedule kept. Any number of threads may use one at the same time.
typedef struct coffer_aead coffer_aead;

/// `key` has 32 bytes. Never NULL: memory that cannot be had ends the process.
coffer_aead *coffer_aead_new(const uint8_t *key);
/// Wipes and frees.
void coffer_aead_free(coffer_aead *aead);

/// Seals `count` bytes to `output` (the same memory as `input`, or apart from it) and writes 16 bytes of `tag`. The nonce
/// has 12 bytes. Returns 1; 0 only when `count` is beyond what GCM allows.
int coffer_aead_seal(const coffer_aead *aead, uint8_t *output, uint8_t *tag, const uint8_t *nonce, const uint8_t *input,
                     size_t count, const uint8_t *additional, size_t additional_count);
/// Returns 1, or 0 with `output` zeroed when the tag does not fit.
int coffer_aead_open(const coffer_aead *aead, uint8_t *output, const uint8_t *nonce, const uint8_t *input, size_t count,
                     const uint8_t *tag, const uint8_t *additional, size_t additional_count);

/// The same for one message under `key` (32 bytes), with the schedule on the stack and wiped afterwards.
int coffer_aead_seal_once(const uint8_t *key, uint8_t *output, uint8_t *tag, const uint8_t *nonce, const uint8_t *input,
                          size_t count, const uint8_t *additional, size_t additional_count);
int coffer_aead_open_once(const uint8_t *key, uint8_t *output, const uint8_t *nonce, const uint8_t *input, size_t count,
                          const uint8_t *tag, const uint8_t *additional, size_t additional_count);

/// XAES-256-GCM's long-term key (C2SP): the AES-256 key schedule and the CMAC subkey K1.
typedef struct coffer_xaes coffer_xaes;
coffer_xaes *coffer_xaes_new(const uint8_t *key);
void coffer_xaes_free(coffer_xaes *xaes);
/// `nonce` has 24 bytes; otherwise as coffer_aead_seal.
int coffer_xaes_seal(const coffer_xaes *xaes, uint8_t *output, uint8_t *tag, const uint8_t *nonce, const uint8_t *input,
                     size_t count, const uint8_t *additional, size_t additional_count);
int coffer_xaes_open(const coffer_xaes *xaes, uint8_t *output, const uint8_t *nonce, const uint8_t *input, size_t count,
                     const uint8_t *tag, const uint8_t *additional, size_t additional_count);

/// HKDF-SHA256 (RFC 5869), extract and expand. Returns 0 when more than 8,160 bytes are asked for.
int coffer_hkdf(uint8_t *output, size_t count, const uint8_t *secret, size_t secret_count, const uint8_t *salt,
                size_t salt_count, const uint8_t *info, size_t info_count);
/// SHA-256; `output` has 32 bytes.
void coffer_sha256(uint8_t *output, const uint8_t *input, size_t count);
#endif
