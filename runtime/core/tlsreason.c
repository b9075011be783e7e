/* SPDX-License-Identifier: MIT */
/* What OpenSSL says, in our words. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/tls.h"

#define ALERTS 1000 /* where OpenSSL's reasons begin that are alerts of the peer's */

static int
code_of_certificate(int error)
{
    switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED: return SPOKE_ECERTEXPIRED;
    case X509_V_ERR_CERT_NOT_YET_VALID: return SPOKE_ECERTEARLY;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return SPOKE_ECERTNAME;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_UNTRUSTED: return SPOKE_ECERTISSUER;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: return SPOKE_ECERTSELF;
    case X509_V_ERR_INVALID_PURPOSE:
    case X509_V_ERR_INVALID_CA: return SPOKE_ECERTUSAGE;
    case X509_V_ERR_CERT_REVOKED: return SPOKE_ECERTREVOKED;
    default: return SPOKE_ECERT;
    }
}

/* Alerts that are about our certificate: the peer has looked at it and will not have it. */
static bool
is_about_certificate(int alert)
{
    switch (alert) {
    case SSL_AD_NO_CERTIFICATE:
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_CERTIFICATE_EXPIRED:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_UNKNOWN_CA:
    case SSL_AD_ACCESS_DENIED:
    case SSL_AD_CERTIFICATE_REQUIRED: return true;
    default: return false;
    }
}

/* OpenSSL 3.0 has no words for those of TLS 1.3. */
static const char *
alert_text(int alert)
{
    switch (alert) {
    case SSL_AD_CERTIFICATE_REQUIRED: return "certificate required";
    case SSL_AD_MISSING_EXTENSION: return "missing extension";
    case SSL_AD_NO_APPLICATION_PROTOCOL: return "no application protocol";
    default: return SSL_alert_desc_string_long(alert);
    }
}

static const char *
reason_text(unsigned long error)
{
    const char *text = ERR_reason_error_string(error);

    return text != NULL ? text : "no details";
}

const char *
spk_tls_last_error(void)
{
    unsigned long error = ERR_peek_last_error();

    ERR_clear_error();
    return reason_text(error);
}

void
spk_tls_name_text(const X509_NAME *name, char *text, size_t size)
{
    BIO *out = BIO_new(BIO_s_mem());
    int n = 0;

    if (out != NULL && X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253) >= 0)
        n = BIO_read(out, text, (int)size - 1);
    text[n > 0 ? n : 0] = '\0';
    BIO_free(out);
}

int
spk_tls_reason(const struct spk_tls_verdict *verdict, char *text, size_t size)
{
    unsigned long error = ERR_peek_error(); /* the first one; others follow from it */
    int reason = ERR_GET_REASON(error), code;

    ERR_clear_error();
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verdict->error != X509_V_OK) {
        code = code_of_certificate(verdict->error);
        snprintf(text, size, "%s: %s (%s)", spoke_strerror(code),
                 X509_verify_cert_error_string(verdict->error),
                 verdict->subject[0] != '\0' ? verdict->subject : "no subject");
        return code;
    }
    if (ERR_GET_LIB(error) == ERR_LIB_SSL && reason >= ALERTS)
        code = is_about_certificate(reason - ALERTS) ? SPOKE_ECERTREFUSED : SPOKE_ETLS;
    else
        code = reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE ? SPOKE_ECERTNONE : SPOKE_ETLS;
    if (ERR_GET_LIB(error) == ERR_LIB_SSL && reason >= ALERTS)
        snprintf(text, size, "%s: it says \"%s\"", spoke_strerror(code),
                 alert_text(reason - ALERTS));
    else
        snprintf(text, size, "%s: %s", spoke_strerror(code), reason_text(error));
    return code;
}
