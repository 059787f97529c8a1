#include "private.h"
#include <stdlib.h>

coffer_token_uri *coffer_token_uri_parse(const char *text, const char **problem) {
    P11KitUri *uri = p11_kit_uri_new();
    if (!uri) abort();
    int result = p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri);
    if (result == P11_KIT_URI_OK) return (coffer_token_uri *)uri;
    p11_kit_uri_free(uri);
    switch (result) {
    case P11_KIT_URI_BAD_SCHEME: *problem = "it does not begin with 'pkcs11:'"; break;
    case P11_KIT_URI_BAD_ENCODING: *problem = "a character of it is not percent-encoded as it must be"; break;
    default: *problem = "its parts are not NAME=VALUE, joined by ';' before the '?' and by '&' behind it"; break;
    }
    return NULL;
}

void coffer_token_uri_free(coffer_token_uri *uri) { p11_kit_uri_free((P11KitUri *)uri); }
const char *coffer_token_uri_module_path(const coffer_token_uri *uri) { return p11_kit_uri_get_module_path((const P11KitUri *)uri); }
const char *coffer_token_uri_pin_source(const coffer_token_uri *uri) { return p11_kit_uri_get_pin_source((const P11KitUri *)uri); }
int coffer_token_uri_has_pin(const coffer_token_uri *uri) { return p11_kit_uri_get_pin_value((const P11KitUri *)uri) != NULL; }
int coffer_token_uri_has_unknown(const coffer_token_uri *uri) { return p11_kit_uri_any_unrecognized((P11KitUri *)uri); }

int coffer_token_uri_names_object(const coffer_token_uri *uri) {
    return p11_kit_uri_get_attribute((P11KitUri *)uri, CKA_LABEL) != NULL || p11_kit_uri_get_attribute((P11KitUri *)uri, CKA_ID) != NULL;
}
