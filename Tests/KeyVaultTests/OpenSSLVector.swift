import CofferCore

/// A key made for this test by `openssl genrsa 2048`, and what `openssl pkeyutl` encrypted with it. Protects nothing.
enum OpenSSLVector {
    static let plaintext = "a data encryption key, 32 bytes!"
    static let ciphertext =
        "RwoPWu3oNxPLJ3le2jpNFVWRWLbhGGFRYnA6UwsfD1uxfblNt0XWUHinZWu50WIxOChFUeliuLXm7AqiiYkmP90sMEmIhf1A-dxH"
        + "IupVJE7TtMIQWdbRGb7WxmYUPgndnmaKMDJVdwz0k0xjU0bBQVFXBarAyOab33YSFohaKR1NDUMybRjN8BX7sKEo8dBGzdtlkk9T"
        + "5TzC8SSEKhT8roiLmyyr4zUqbOkjeMh8IsvMNBziUFquOrvR5R_K-Ni2KYPoORiq3K4FuRVmVDTmQts6JRRYZGE-yXPraMvSuymf"
        + "kJqi749VcqDARgRMunQT7B0IQSAff7QrIiPexEy3ZA"
    static let jwk: [String: JSONValue] = members.mapValues { .string($0) }.merging(["kty": "RSA"]) { old, _ in old }
    private static let members: [String: String] = [
        "n": "4PzaRdMjwWtRTambBQelsSoebmiNB0rC8-633ozClRPh4p9B_nVzg-k5Amu2oySkAnDxsR8ZkPPtdPRb06JcxytrWToBZPAiSFr3"
            + "nPVoGhJPv7Vxo7-L3Up5tOa1eguEPIzY97cRVMpxFSm6D_7OES6-4fuLQ8M03fTiF9RyDlDGeatEhi_B8hGmGiKCnQOM3HCIbURT"
            + "pvNjbRAobr5CxTtoD4pHXfXUMoHlLS_5YEgtLdIi8ioK51JfPrvJVY-rNhOsGU7P_6o3fWGNZXGunLz9H2g0HveNyNToc_k1ApNM"
            + "7o3jF8s5pYC8sl8zqqWsVOfTWjUQjPL-tYEihQtBiQ",
        "e": "AQAB",
        "d": "DQvBu7RwtCmnvGlIyA5iS7cbA6Dusze2Z-mgN3iRseOba1t7uqhkgId4sEy--Y_Jg4C5awwCx1Z1nvH_vx0A5JBTzbKLhnxW0zuU"
            + "dGwAfikwqaJOSsXzyMBQSq6UDashnwHgdOC50bZZafY88pTTrchi9idICIUHCZXGZHEDr2kLekEZEnVNVwunVwb_2QdiRxbrs7wV"
            + "hQ-zXf0UBqsxm1CIzg7Of1TN_1n8xlastUZnXrAo0x6sIWDPyVB2UdOrpVhOesn-UjKV94Iwn9XpqHmuQVGeDhwG6D38kWzuiJmi"
            + "LO9k_OuMuQgd78il5d4QnY7He4AmlBOe2N15vtMn2Q",
        "p": "9X56dnog8zCLP1e8be3bLrWcy14pMriLOitK_GKcK3XJXZArD3yqVAMrgRM1lMGuN1yuDvRorBksMOirT1UsZwrjHlGVJcsbvgLd"
            + "vbTi04RiDJvmeWXnl5cm2u8MR6-QbdG0kyyuF2ae7_RzZbwW8KYfH1x0vKXyzI1Wxvd3S90",
        "q": "6p23Sg1KRXEUcB9IuqX6-fsjciY86vB1OUEzhuVCfIyAtRgpGP6zugTUtDjS24uhZ9OqR8yFyoqs4N5fdBwqWwQK1GrrfyVZdUMK"
            + "Q4i7N2eTn406KX142T4SMXEy2uuMjygPfYxt2bXCWnxKS3GkW81dIQO84wQlN-gIxLw2d50",
        "dp": "q7UmVN4BU_fdPZXRTxZyGw6eN8SJjldz0mDblwIl92PwT0f6Rl_NBuwcrrBP5tc9Uq25dO5QlCcbOK5UvC133C7KQrePWZrhsZpx"
            + "nDH8ATP0HJuircCwJuBrJfDTpwROQfHOmq5Cqk1116IkYMEZToLy-82APT7ZP2eQjaQjReU",
        "dq": "2j3ZuQ3Bz_TPgTjoq48odo8xusZtFlKViKvpJYtvnHIKa-rMmA6d2uURg4_0PPuXKgDQPje3IOB8zjSs8FIe6ElLVasb40s3-wdg"
            + "rc-r727u-JUjzGKGHvdJbyqQlupT9vrZ5fzSVpln8En7xlAxBqBzB_n1I-vAP1Adj_xQYlU",
        "qi": "wUhJgJPjC6EG93EcRgqfjtEcyvgeQ3qNAM9LhJqScTk_Ja8Q3fjEY3kMzZpDfIxyaWgX5FImy0ujNcKAefDex3orgXP_mkVNM8Xi"
            + "wxTB5JYGo8QLcVyJknaDEfTHG_kNM6IYMnNqSJ6C5qH0FBAQQNMuI6opfEyIRplXcdTOh18",
    ]
}
