# ruff: noqa: E501 (a form with its length is one piece)
"""API keys and access tokens that say what they are: the literal their issuer puts in front, and what follows it.

Collected from the issuers' documentation; gitleaks (MIT) and detect-secrets (Apache-2.0) list the same forms.
"""

import re

_FORMS = {
    **dict.fromkeys(("AKIA", "ASIA", "AROA", "AIDA", "ABIA", "ACCA", "A3T"), "[0-9A-Z]{16}"),  # AWS
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), r"\w{20,}"),
    **dict.fromkeys(("glpat-", "gldt-", "glrt-", "glft-", "gloas-", "glcbt-", "glimt-", "glagent-", "glsoat-", "glptt-",
                     "glffct-", "GR1348941"), r"[\w.-]{16,}"),
    **dict.fromkeys(("xoxa-", "xoxb-", "xoxe-", "xoxe.", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-"), r"[\w.-]{10,}"),
    **dict.fromkeys(("sk_live_", "sk_test_", "sk_prod_", "rk_live_", "rk_test_", "rk_prod_", "pk_live_", "pk_test_"),
                    r"\w{10,}"),
    **dict.fromkeys(("sk-", "pplx-", "nvapi-", "tk-us-", "xai-"), r"[\w-]{20,}"),
    **dict.fromkeys(("whsec_", "secret_", "ntn_", "rdme_", "tfp_", "pnu_", "sgp_", "squ_", "sqp_", "sqa_", "fo1_", "fm1_",
                     "fm2_", "glc_", "glsa_", "lin_api_", "r8_", "gsk_", "vercel_", "npm_", "hf_", "api_org_",
                     "rubygems_", "sntrys_", "sntryu_", "ops_", "shippo_live_", "shippo_test_", "sm_aat_", "sm_pat_",
                     "sm_sat_", "CLOJARS_", "dop_v1_", "doo_v1_", "dor_v1_", "duffel_live_", "duffel_test_",
                     "pscale_tkn_", "pscale_oauth_", "pscale_pw_", "FLWSECK_TEST-", "FLWPUBK_TEST-", "dapi", "ico-",
                     "pul-", "PMAK-", "HRKU-", "NRAK-", "NRJS-", "NRII-", "NRIQ-", "NRRA-", "p8e-", "xkeysib-", "xsmtpsib-", "API-",
                     "s-s4t2", "fio-u-", "lip_live_", "live_", "shpat_", "shpca_", "shppa_", "shpss_"), r"[\w=+/-]{16,}"),
    **dict.fromkeys(("hvs.", "hvb.", "pat.", "sat.", "dp.pt.", "dt0c01.", "v1.0-", "ATATT3", "AKCp", "cmVmd", "ABSK", "LTAI",
                     "AQVN", "YCAJE", "YC", "t1.", "EAA", "AIza", "ya29.", "1//0", "4b1d", "oy2", "GOCSPX-", "FlyV1 "),
                    r"[\w.=+/-]{20,}"),
    "pypi-": r"[\w-]{16,}", "SG.": r"[\w-]{16,}\.[\w-]{16,}", "sq0": r"\w{3}-[\w-]{20,}", "key-": "[0-9a-f]{32}",
    "pubkey-": "[0-9a-f]{32}", "AC": "[0-9a-f]{32}", "SK": "[0-9a-f]{32}", "EZAK": "[0-9A-Za-z]{50,}", "EZTK": "[0-9A-Za-z]{50,}",
    **dict.fromkeys(("dnkey-", "dckr_pat_"), r"[\w-]{27,}"), "sl.": r"[\w-]{100,}",
    **dict.fromkeys(("access-production-", "access-sandbox-", "access-development-"), "[0-9a-f-]{36}"),
    **dict.fromkeys(("pk.", "sk.", "tk."), r"[A-Za-z0-9]{60,}\.[\w-]{20,}"),
    "A3-": "[A-Z0-9]{6}-[A-Z0-9-]{20,}", "AGE-SECRET-KEY-1": "[A-Z0-9]{58}", "sha256~": r"[\w-]{43}",
}  # fmt: skip
_SHAPES = (  # no literal in front: Telegram bot, Discord bot, Azure, Atlas, Mailchimp and Mailgun, Facebook, old Vault,
    # Authress, MaxMind
    r"\d{8,10}:[\w-]{35}",
    r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}",
    r"[\w.]{3}\dQ~[\w.~-]{31,34}",
    r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{60,70}",
    r"[0-9a-f]{32}-(?:us\d{1,2}|[0-9a-f]{8}-[0-9a-f]{8})",
    r"\d{15,16}\|[\w-]{27,40}",
    r"s\.[A-Za-z0-9]{24}",
    r"(?:sc|ext|scauth|authress)_\w{5,30}\.\w{4,6}\.acc[_-][\w-]{10,32}\.[\w+/=-]{30,}",
    r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk",
)
PATTERN = "|".join((*(re.escape(literal) + rest for literal, rest in _FORMS.items()), *_SHAPES))
_ROUGH = (
    "(?:" + "|".join(map(re.escape, _FORMS)) + ")[A-Za-z0-9_.=+/-]{10}",
    r":[A-Za-z0-9_-]{35}|\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27}|\dQ~|\.atlasv1\.|-us\d|_mmk|\d\|[A-Za-z0-9_-]{27}|[0-9a-f]{32}-[0-9a-f]|s\.[A-Za-z0-9]{24}|\.acc[_-]",
)
PREFILTER = "|".join(_ROUGH)
GATE = "[A-Za-z0-9_.=+/~:|-]{15}"  # in every form: the shortest is xoxb- and ten characters
