//! Both databases have one schema.

use std::{collections::BTreeSet, error::Error, fs, path::Path};

use crate::support::{Home, Kind, Outcome, stories, timed_stories};

stories! { every_foreign_key_has_an_index }
timed_stories! { the_schema_goes_down_and_up_again }

/// Queries that describe a schema, one text for each fact; types are named as SQLite knows them.
struct Describe {
    columns: &'static str,
    unique_keys: &'static str,
    foreign_keys: &'static str,
    indexes: &'static str,
}

const SQLITE: Describe = Describe {
    columns: "
        SELECT t.name || '.' || c.name || ' ' || lower(c.type) || CASE WHEN c.\"notnull\" THEN ' not null' ELSE '' END
               AS first
        FROM sqlite_schema t, pragma_table_info(t.name) c
        WHERE t.type = 'table' AND t.name NOT LIKE '\\_\\_%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite%'",
    unique_keys: "
        SELECT t.name || '(' || (SELECT group_concat(name) FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno))
               || ')' || CASE WHEN i.partial THEN ' where' ELSE '' END AS first
        FROM sqlite_schema t, pragma_index_list(t.name) i
        WHERE t.type = 'table' AND i.\"unique\" AND t.name NOT LIKE '\\_\\_%' ESCAPE '\\'",
    foreign_keys: "
        SELECT t.name || '.' || f.\"from\" || ' -> ' || f.\"table\" AS first
        FROM sqlite_schema t, pragma_foreign_key_list(t.name) f WHERE t.type = 'table'",
    indexes: "
        SELECT t.name || '.' || (SELECT name FROM pragma_index_info(i.name) WHERE seqno = 0) AS first
        FROM sqlite_schema t, pragma_index_list(t.name) i WHERE t.type = 'table' AND NOT i.partial",
};

const POSTGRES: Describe = Describe {
    columns: "
        SELECT table_name || '.' || column_name || ' ' || CASE data_type
                 WHEN 'uuid' THEN 'blob' WHEN 'bytea' THEN 'blob' WHEN 'text' THEN 'text' ELSE 'integer' END
               || CASE is_nullable WHEN 'NO' THEN ' not null' ELSE '' END AS first
        FROM information_schema.columns WHERE table_schema = 'public' AND left(table_name, 2) <> '__'",
    unique_keys: "
        SELECT t.relname || '(' || (
                 SELECT string_agg(a.attname, ',' ORDER BY k.place) FROM unnest(i.indkey) WITH ORDINALITY k (number, place)
                 JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number)
               || ')' || CASE WHEN i.indpred IS NULL THEN '' ELSE ' where' END AS first
        FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
        WHERE n.nspname = 'public' AND i.indisunique AND left(t.relname, 2) <> '__'",
    foreign_keys: "
        SELECT t.relname || '.' || a.attname || ' -> ' || o.relname AS first
        FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class o ON o.oid = c.confrelid
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = c.conkey[1] WHERE c.contype = 'f'",
    indexes: "
        SELECT t.relname || '.' || a.attname AS first
        FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
        JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
        WHERE n.nspname = 'public' AND i.indpred IS NULL",
};

fn describe(home: &Home) -> &'static Describe {
    if home.database_url().is_some() { &POSTGRES } else { &SQLITE }
}

async fn facts(home: &Home, query: &str) -> Result<BTreeSet<String>, Box<dyn Error>> {
    Ok(home.query(query.trim()).await?.into_iter().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_databases_have_the_same_tables_columns_and_unique_keys() -> Outcome {
    let (sqlite, postgres) = (Home::new(Kind::Sqlite).await?, Home::new(Kind::Postgres).await?);
    sqlite.start().await?.stop().await?;
    postgres.start().await?.stop().await?;
    let columns = facts(&sqlite, SQLITE.columns).await?;
    assert!(
        columns.contains("users.email text") && columns.contains("users.id blob not null"),
        "{columns:?}"
    );
    assert_eq!(columns, facts(&postgres, POSTGRES.columns).await?);
    let keys = facts(&sqlite, SQLITE.unique_keys).await?;
    assert!(keys.contains("users(tenant_id,username)"), "{keys:?}");
    assert!(keys.contains("sessions(user_id,device_type,slot) where"), "{keys:?}");
    let mut theirs = facts(&postgres, POSTGRES.unique_keys).await?;
    // SQLite keeps a whole-number primary key as the row's own number and lists no index for it.
    for by_number in ["audit_trail(id)", "trust_head(id)", "trust_log(revision)"] {
        assert!(theirs.remove(by_number), "{theirs:?}");
    }
    assert_eq!(keys, theirs);
    let foreign = facts(&sqlite, SQLITE.foreign_keys).await?;
    assert!(!foreign.is_empty());
    assert_eq!(foreign, facts(&postgres, POSTGRES.foreign_keys).await?);
    Ok(())
}

async fn every_foreign_key_has_an_index(home: Home) -> Outcome {
    home.start().await?.stop().await?;
    let indexes = facts(&home, describe(&home).indexes).await?;
    for key in facts(&home, describe(&home).foreign_keys).await? {
        let column = key.split(' ').next().unwrap_or_default();
        assert!(indexes.contains(column), "{column} has no index that begins with it");
    }
    Ok(())
}

#[test]
fn migrations_have_the_same_names_and_go_both_ways() -> Outcome {
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let names = |database: &str| -> Result<BTreeSet<String>, Box<dyn Error>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(migrations.join(database))? {
            let entry = entry?;
            for step in ["up.sql", "down.sql"] {
                assert!(entry.path().join(step).is_file(), "{} has no {step}", entry.path().display());
            }
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    let sqlite = names("sqlite")?;
    assert!(!sqlite.is_empty());
    assert_eq!(sqlite, names("postgres")?);
    Ok(())
}

async fn the_schema_goes_down_and_up_again(home: Home) -> Outcome {
    home.start().await?.stop().await?;
    let before = facts(&home, describe(&home).columns).await?;
    let folder = if home.database_url().is_some() { "postgres" } else { "sqlite" };
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
    let mut steps: Vec<_> =
        fs::read_dir(migrations)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    steps.sort();
    for step in steps.iter().rev() {
        for statement in fs::read_to_string(step.join("down.sql"))?.split_inclusive(";\n") {
            home.query(statement).await?;
        }
    }
    assert!(facts(&home, describe(&home).columns).await?.is_empty(), "something was left");
    home.query("DELETE FROM __diesel_schema_migrations").await?;
    let server = home.start().await?;
    assert!(server.admin().await.is_ok());
    server.stop().await?;
    assert_eq!(facts(&home, describe(&home).columns).await?, before);
    Ok(())
}
