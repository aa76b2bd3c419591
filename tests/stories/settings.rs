//! Settings: where they come from, which one counts, and what is said of a wrong one.

use tessera::proto::VerifyTokenRequest;

use crate::support::{
    ADMIN_PASSWORD, Ended, Home, Kind, Outcome, Server, login_as, refresh_with, refusal, run,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Flags, variables and what they lead to.
type Start<'s> = (Vec<&'s str>, &'s [(&'s str, &'s str)], &'s str);

/// A folder for a binary on SQLite, and nothing else.
async fn empty() -> Result<Home> {
    Home::new(Kind::BinarySqlite).await
}

/// `tessera serve` with these flags and these variables.
fn serve(home: &Home, flags: &[&str], variables: &[(&str, &str)]) -> tokio::process::Command {
    let mut command = home.binary();
    command.arg("serve").args(flags).envs(variables.iter().copied());
    command
}

fn write(home: &Home, toml: &str) -> Outcome {
    Ok(std::fs::write(home.dir().join("tessera.toml"), toml)?)
}

/// Says that the binary refused to start, why, and that it left nothing behind.
fn assert_names(home: &Home, ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert_eq!(ended.stderr.trim().lines().count(), 1, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no {word} in {ended:?}");
    }
    assert!(!home.dir().join("data").exists());
}

/// A wrong file is refused, and what is said names these words and the file.
async fn refuse_file(toml: &str, words: &[&str]) -> Outcome {
    let home = empty().await?;
    write(&home, toml)?;
    let ended = run(serve(&home, &["--config", "tessera.toml"], &[])).await?;
    assert_names(&home, &ended, words);
    assert!(ended.stderr.contains("tessera.toml"), "{ended:?}");
    Ok(())
}

/// A wrong variable is refused, and what is said names these words and the variable.
async fn refuse_variable(variable: &str, value: &str, words: &[&str]) -> Outcome {
    let home = empty().await?;
    let ended = run(serve(&home, &[], &[(variable, value)])).await?;
    assert_names(&home, &ended, words);
    let source = format!("the environment variable {variable})");
    assert!(ended.stderr.contains(&source), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_value_in_the_file_is_named_with_the_file() -> Outcome {
    refuse_file("[tokens]\naccess_ttl = \"soon\"\n", &["tokens.access_ttl"]).await?;
    refuse_file("[server]\nreflection = \"perhaps\"\n", &["server.reflection"]).await?;
    refuse_file("[accounts]\nsignup = \"ajar\"\n", &["accounts.signup", "ajar"]).await?;
    refuse_file("[sessions]\nper_user = -1\n", &["sessions.per_user"]).await?;
    refuse_file("[server]\nwatch = \"nobody\"\n", &["server.watch", "nobody"]).await?;
    refuse_file("[tokens]\nintrospection = \"users\"\n", &["tokens.introspection", "users"]).await?;
    refuse_file("[sessions]\non_address_change = \"shrug\"\n", &["sessions.on_address_change", "shrug"])
        .await?;
    refuse_file("[sessions]\naddress_prefix_v4 = 33\n", &["sessions.address_prefix_v4", "1 to 32"]).await?;
    refuse_file("[tokens]\ndpop_nonce = \"perhaps\"\n", &["tokens.dpop_nonce", "perhaps"]).await?;
    refuse_file("[tokens]\ndpop_origins = [\"orders\"]\n", &["tokens.dpop_origins", "`orders`"]).await?;
    refuse_file("[sessions]\naddress_prefix_v6 = 0\n", &["sessions.address_prefix_v6", "1 to 128"]).await?;
    refuse_file(
        "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"proxy.example\"]\n",
        &["server.trusted_proxies", "proxy.example"],
    )
    .await
}

#[tokio::test]
async fn a_wrong_value_in_the_environment_is_named_with_the_variable() -> Outcome {
    refuse_variable("TESSERA_TOKENS__ACCESS_TTL", "soon", &["tokens.access_ttl"]).await?;
    refuse_variable("TESSERA_TOKENS__ISSUER", "tessera", &["tokens.issuer"]).await?;
    refuse_variable("TESSERA_LOG__FILTER", "a=b=c", &["log.filter"]).await?;
    refuse_variable("TESSERA_SERVER__TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/33", &["10.0.0.0/33"]).await?;
    refuse_variable("TESSERA_SERVER__LISTEN", "localhost", &["server.listen", "socket address"]).await
}

#[tokio::test]
async fn a_wrong_value_in_a_flag_is_named_with_the_command_line() -> Outcome {
    let home = empty().await?;
    let ended = run(serve(&home, &["--listen", "nonsense"], &[])).await?;
    assert_names(&home, &ended, &["server.listen", "the command line"]);
    Ok(())
}

#[tokio::test]
async fn a_database_url_of_another_kind_is_refused_and_its_password_kept_secret() -> Outcome {
    let urls = [
        "mysql://tessera:hunter2@db/tessera",
        "hunter2",
        "postgres://tessera:hunter2@db:port/tessera",
        "postgres://tessera:hunter2@db/tessera?colour=red",
    ];
    for url in urls {
        for variable in ["DATABASE_URL", "TESSERA_DATABASE__URL"] {
            refuse_variable(variable, url, &["database.url"]).await?;
        }
        let home = empty().await?;
        let ended = run(serve(&home, &["--database-url", url], &[("DATABASE_URL", url)])).await?;
        assert_names(&home, &ended, &["database.url", "the command line"]);
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
        write(&home, &format!("[database]\nurl = \"{url}\"\n"))?;
        let ended = run(serve(&home, &["--config", "tessera.toml"], &[])).await?;
        assert_names(&home, &ended, &["database.url", "tessera.toml"]);
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_encryption_key_is_refused_and_not_repeated() -> Outcome {
    let home = empty().await?;
    for keks in ["c2VjcmV0", "main:c2VjcmV0", "12345678"] {
        let ended = run(serve(&home, &[], &[("TESSERA_SEALING__KEKS", keks)])).await?;
        assert_names(&home, &ended, &["sealing.keks", "the environment variable TESSERA_SEALING__KEKS"]);
        assert!(!ended.stderr.contains("c2VjcmV0") && !ended.stderr.contains("12345678"), "{ended:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_setting_in_the_file_is_refused() -> Outcome {
    let no_such = "there is no such setting";
    refuse_file("[tokens]\naccess_tll = \"5m\"\n", &["tokens.access_tll", no_such]).await?;
    refuse_file("[tokes]\naccess_ttl = \"5m\"\n", &["tokes.access_ttl", no_such]).await?;
    refuse_file("access_ttl = \"5m\"\n", &["access_ttl", no_such]).await
}

#[tokio::test]
async fn an_unknown_variable_of_ours_is_refused_and_those_of_others_are_not_ours() -> Outcome {
    let no_such = "there is no such setting";
    refuse_variable("TESSERA_TOKENS__ACCESS_TLL", "5m", &["tokens.access_tll", no_such]).await?;
    refuse_variable("TESSERA_TOKENS_ACCESS_TTL", "5m", &[no_such]).await?;
    let home = empty().await?;
    let others = [("TESSERACT_MODE", "x"), ("ACCESS_TTL", "x"), ("URL", "x")];
    let server = Server::of_binary(serve(&home, &["--listen", "127.0.0.1:0"], &others)).await?;
    server.stop().await
}

#[tokio::test]
async fn what_is_no_toml_is_named_with_its_line_which_may_hold_a_secret() -> Outcome {
    refuse_file("[tokens]\naccess_ttl = \n", &["--config", "line 2, column 14", "invalid string"]).await?;
    let home = empty().await?;
    write(&home, "[sealing]\nkeks = \"main:c2VjcmV0\n")?;
    let ended = run(serve(&home, &["--config", "tessera.toml"], &[])).await?;
    assert_names(&home, &ended, &["line 2"]);
    assert!(!ended.stderr.contains("c2VjcmV0"), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_value_beyond_its_bounds_is_refused() -> Outcome {
    refuse_variable("TESSERA_TOKENS__ACCESS_TTL", "2h", &["tokens.access_ttl", "between 1s and 1h"]).await?;
    refuse_variable("TESSERA_TOKENS__ACCESS_TTL", "0s", &["tokens.access_ttl"]).await?;
    refuse_variable("TESSERA_PASSWORDS__MIN_LENGTH", "4", &["passwords.min_length"]).await?;
    refuse_variable("TESSERA_PASSWORDS__MAX_LENGTH", "32", &["passwords.max_length"]).await?;
    refuse_variable("TESSERA_SESSIONS__KEEP_ENDED", "1h", &["sessions.keep_ended", "between 1h 1m"]).await?;
    refuse_variable("TESSERA_AUDIT__KEEP", "1s", &["audit.keep"]).await?;
    refuse_variable("TESSERA_SIGNING__RSA_BITS", "1024", &["signing.rsa_bits"]).await
}

#[tokio::test]
async fn plain_text_beyond_loopback_is_served_only_where_it_was_allowed() -> Outcome {
    let home = empty().await?;
    let beyond = ["--listen", "0.0.0.0:0"];
    let ended = run(serve(&home, &beyond, &[])).await?;
    assert_names(&home, &ended, &["server.listen", "the command line", "--allow-plaintext", "tls_cert"]);

    let allowed = ["--listen", "0.0.0.0:0", "--allow-plaintext"];
    let server = Server::of_binary(serve(&home, &allowed, &[])).await?;
    assert!(server.said().contains("http://0.0.0.0:"), "{}", server.said());
    server.stop().await?;
    let variable = [("TESSERA_SERVER__ALLOW_PLAINTEXT", "true")];
    Server::of_binary(serve(&home, &beyond, &variable)).await?.stop().await
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() -> Outcome {
    let home = empty().await?;
    let ended = run(serve(&home, &["--config", "nowhere.toml"], &[])).await?;
    assert_names(&home, &ended, &["--config", "nowhere.toml", "the command line"]);
    let missing = [
        ("TESSERA_SEALING__KEK_FILE", "sealing.kek_file"),
        ("TESSERA_PASSWORDS__BLOCKLIST_FILE", "passwords.blocklist_file"),
    ];
    for (variable, setting) in missing {
        refuse_variable(variable, "nowhere", &[setting, "nowhere:"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_needs_its_key_and_a_key_its_certificate() -> Outcome {
    refuse_variable("TESSERA_SERVER__TLS_CERT", "cert.pem", &["server.tls_cert", "server.tls_key"]).await?;
    refuse_file("[server]\ntls_key = \"key.pem\"\n", &["server.tls_key", "server.tls_cert"]).await
}

#[tokio::test]
async fn certificates_of_clients_are_asked_for_over_tls_and_believed_of_trusted_proxies() -> Outcome {
    let needs = ["server.client_ca", "server.tls_cert", "server.tls_key"];
    refuse_variable("TESSERA_SERVER__CLIENT_CA", "clients.pem", &needs).await?;
    let header = "server.client_cert_header";
    refuse_variable("TESSERA_SERVER__CLIENT_CERT_HEADER", "client-cert", &[header, "server.trusted_proxies"])
        .await?;
    let toml = "[server]\ntrusted_proxies = [\"10.0.0.1\"]\nclient_cert_header = \"client cert\"\n";
    refuse_file(toml, &[header]).await
}

#[tokio::test]
async fn key_encryption_keys_come_from_one_place() -> Outcome {
    let home = empty().await?;
    let key = format!("main:{}=", "A".repeat(43));
    std::fs::write(home.dir().join("keks"), &key)?;
    let both = [("TESSERA_SEALING__KEKS", key.as_str()), ("TESSERA_SEALING__KEK_FILE", "keks")];
    let ended = run(serve(&home, &[], &both)).await?;
    assert_names(&home, &ended, &["sealing.keks", "sealing.kek_file", "TESSERA_SEALING__KEKS"]);

    for one in both {
        let home = empty().await?;
        std::fs::write(home.dir().join("keks"), &key)?;
        let server = Server::of_binary(serve(&home, &["--listen", "127.0.0.1:0"], &[one])).await?;
        server.stop().await?;
        assert!(!home.dir().join("data/kek").exists(), "no key of its own beside the given one");
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_64_and_a_question_with_0() -> Outcome {
    let home = empty().await?;
    for wrong in [
        vec![],
        vec!["serf"],
        vec!["serve", "--port", "1"],
        vec!["serve", "--listen"],
        vec!["health", "--verbose"],
    ] {
        let mut command = home.binary();
        command.args(&wrong);
        let ended = run(command).await?;
        assert_eq!(ended.code, Some(64), "{wrong:?}: {ended:?}");
        assert!(ended.stderr.contains("--help"), "{wrong:?}: {ended:?}");
    }
    for (question, answer) in [
        (vec!["--help"], "serve"),
        (vec!["serve", "--help"], "--listen"),
        (vec!["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let mut command = home.binary();
        command.args(&question);
        let ended = run(command).await?;
        assert_eq!(ended.code, Some(0), "{question:?}: {ended:?}");
        assert!(ended.stdout.contains(answer), "{question:?}: {ended:?}");
    }
    assert_eq!(std::fs::read_dir(home.dir())?.count(), 0, "nothing was made");
    Ok(())
}

#[tokio::test]
async fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() -> Outcome {
    let home = empty().await?;
    write(&home, "[server]\ndata_dir = \"of-the-file\"\n")?;
    let listen = ["--listen", "127.0.0.1:0"];
    let file = ["--config", "tessera.toml"];
    let flag = ["--data-dir", "of-the-flag"];
    let variable = [("TESSERA_SERVER__DATA_DIR", "of-the-environment")];
    let starts: [Start<'_>; 4] = [
        (listen.to_vec(), &[], "data"),
        ([listen, file].concat(), &[], "of-the-file"),
        ([listen, file].concat(), &variable, "of-the-environment"),
        ([listen, file, flag].concat(), &variable, "of-the-flag"),
    ];
    let mut made = vec!["tessera.toml".to_owned()];
    for (flags, variables, expected) in starts {
        let server = Server::of_binary(serve(&home, &flags, variables)).await?;
        server.stop().await?;
        made.push(expected.to_owned());
        made.sort();
        let mut there: Vec<String> = std::fs::read_dir(home.dir())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<_>>()?;
        there.sort();
        assert_eq!(there, made);
    }
    Ok(())
}

/// The issuer and the life in seconds of an access token of a server that is started so.
async fn issuer_and_ttl(home: &Home, flags: &[&str], variables: &[(&str, &str)]) -> Result<(String, i64)> {
    let mut command = serve(home, &["--listen", "127.0.0.1:0"], variables);
    command.args(flags).env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD);
    let server = Server::of_binary(command).await?;
    let reply = server.auth().login(login_as("admin", ADMIN_PASSWORD, "cli")).await?.into_inner();
    let tokens = reply.tokens.ok_or("no tokens")?;
    let token = tokens.access_token;
    let request = VerifyTokenRequest { token, ..Default::default() };
    let answer = server.auth().verify_token(request).await?.into_inner();
    let claims = answer.claims.ok_or("no claims")?;
    assert_eq!(claims.expire_time, tokens.access_expire_time);
    let ends = claims.expire_time.ok_or("no expire_time")?;
    let begins = claims.issue_time.ok_or("no issue_time")?;
    server.stop().await?;
    Ok((claims.iss, ends.seconds - begins.seconds))
}

#[tokio::test]
async fn tokens_obey_the_setting_that_counts_and_what_nobody_overrides_stays() -> Outcome {
    let home = empty().await?;
    let default = "http://127.0.0.1:50051".to_owned();
    assert_eq!(issuer_and_ttl(&home, &[], &[]).await?, (default.clone(), 15 * 60));
    let file = ["--config", "tessera.toml"];
    write(&home, "[tokens]\nissuer = \"https://file.example\"\naccess_ttl = \"10m\"\n")?;
    assert_eq!(issuer_and_ttl(&home, &file, &[]).await?, ("https://file.example".to_owned(), 10 * 60));
    let variable = [("TESSERA_TOKENS__ACCESS_TTL", "5m")];
    assert_eq!(issuer_and_ttl(&home, &file, &variable).await?, ("https://file.example".to_owned(), 5 * 60));
    assert_eq!(issuer_and_ttl(&home, &[], &variable).await?, (default, 5 * 60));
    Ok(())
}

#[tokio::test]
async fn our_own_variable_beats_database_url_and_the_flag_beats_both() -> Outcome {
    let home = empty().await?;
    let variables = [("DATABASE_URL", "sqlite://plain.db"), ("TESSERA_DATABASE__URL", "sqlite://ours.db")];
    let listen = ["--listen", "127.0.0.1:0"];
    let flag = ["--database-url", "sqlite://flag.db"];
    let mut expected = Vec::new();
    let starts: [Start<'_>; 3] = [
        ([listen, flag].concat(), &variables, "flag.db"),
        (listen.to_vec(), &variables, "ours.db"),
        (listen.to_vec(), &variables[..1], "plain.db"),
    ];
    // Each database is sealed under the key in the data directory.
    for (flags, variables, database) in starts {
        let server = Server::of_binary(serve(&home, &flags, variables)).await?;
        server.stop().await?;
        expected.push(database);
        for name in ["flag.db", "ours.db", "plain.db"] {
            assert_eq!(home.dir().join(name).exists(), expected.contains(&name), "{name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_bare_zero_and_a_list_with_commas_are_understood() -> Outcome {
    let home = empty().await?;
    let variables =
        [("TESSERA_SESSIONS__REFRESH_GRACE", "0"), ("TESSERA_TOKENS__DEFAULT_AUDIENCE", "orders, tessera")];
    let mut command = serve(&home, &["--listen", "127.0.0.1:0"], &variables);
    command.env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD);
    let server = Server::of_binary(command).await?;
    let admin = server.admin().await?;
    let request = VerifyTokenRequest { token: admin.access_token, ..Default::default() };
    let claims = server.auth().verify_token(request).await?.into_inner().claims.ok_or("it is not active")?;
    assert_eq!(claims.aud, ["orders", "tessera"]);
    let refresh = || refresh_with(&admin.refresh_token);
    server.auth().refresh(refresh()).await?;
    assert_eq!(refusal(server.auth().refresh(refresh()).await).1, "TOKEN_REUSED");
    server.stop().await?;
    refuse_variable("TESSERA_SESSIONS__REFRESH_GRACE", "10", &["sessions.refresh_grace", "15m"]).await
}

#[tokio::test]
async fn tls_to_postgresql_is_refused_and_not_ignored() -> Outcome {
    let url = "postgres://tessera@127.0.0.1/tessera?sslmode=require";
    refuse_variable("DATABASE_URL", url, &["database.url", "TLS"]).await
}
