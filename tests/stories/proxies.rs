//! Where a call came from that a proxy passed on.

use tonic::{Request, metadata::MetadataValue};

use crate::support::{Home, Outcome, PASSWORD, Server, login_as, stories};

stories! {
    a_trusted_proxy_is_believed,
    nobody_else_is_believed,
}

type Headers<'h> = &'h [(&'static str, &'h str)];

/// The address that a login with these headers is said to come from.
async fn address_with(server: &Server, headers: Headers<'_>) -> Result<String, Box<dyn std::error::Error>> {
    let mut request = Request::new(login_as("anna", PASSWORD, "web"));
    for (name, value) in headers {
        request.metadata_mut().append(*name, MetadataValue::try_from(*value)?);
    }
    let session = server.auth().login(request).await?.into_inner().session.ok_or("no session")?;
    assert_eq!(session.first_address, session.last_address);
    Ok(session.first_address)
}

async fn a_trusted_proxy_is_believed(home: Home) -> Outcome {
    let server = home.start_with("[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n").await?;
    server.anna().await?;
    let told: [(Headers<'_>, &str); 8] = [
        (&[("x-forwarded-for", "203.0.113.9")], "203.0.113.9"),
        (&[("x-forwarded-for", "198.51.100.1, 203.0.113.9, 10.1.2.3")], "203.0.113.9"),
        (&[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "2001:db8::9")], "2001:db8::9"),
        (&[("x-forwarded-for", "nonsense")], "127.0.0.1"),
        (&[("forwarded", "for=\"[2001:db8::9]:4711\";proto=https")], "2001:db8::9"),
        (&[("forwarded", "for=unknown")], "127.0.0.1"),
        (&[("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=198.51.100.1")], "127.0.0.1"),
        (&[], "127.0.0.1"),
    ];
    for (headers, address) in told {
        assert_eq!(address_with(&server, headers).await?, address, "{headers:?}");
    }
    let admin = server.admin().await?;
    address_with(&server, &[("x-forwarded-for", "203.0.113.9")]).await?;
    let newest = server.events(&admin, "login").await?.remove(0);
    assert_eq!(newest.address, "203.0.113.9", "the audit trail tells it too");
    server.stop().await
}

async fn nobody_else_is_believed(home: Home) -> Outcome {
    for settings in ["", "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n"] {
        let server = home.start_with(settings).await?;
        if settings.is_empty() {
            server.anna().await?;
        }
        let headers = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9")];
        assert_eq!(address_with(&server, &headers).await?, "127.0.0.1", "{settings}");
        server.stop().await?;
    }
    Ok(())
}
