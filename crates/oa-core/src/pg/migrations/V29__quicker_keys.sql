-- What each batch of rows asks before it is stored: plans of these functions are kept for the session, where those of LANGUAGE sql are made
-- anew with each call, which took longer than to store the rows. What they give is the same.
CREATE OR REPLACE FUNCTION oa.key_parts(index oid, OUT name text, OUT type text, OUT expression text, OUT value text, OUT comparable text, OUT given text,
                                        OUT nullable boolean) RETURNS SETOF record
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT p.name, p.type, p.expression, CASE WHEN p.zoned THEN format('(%s AT TIME ZONE ''UTC'')', p.expression) ELSE p.expression END,
           CASE WHEN p.structured THEN format('to_jsonb(%s)', p.expression) WHEN p.textual THEN format('(%s)::text COLLATE "C"', p.expression) ELSE format('(%s)%s', p.expression, p.collated) END,
           CASE WHEN p.zoned THEN format('((r.key ->> %L)::timestamp AT TIME ZONE ''UTC'')', p.name) WHEN p.structured THEN format('(r.key -> %L)', p.name)
                WHEN p.textual THEN format('(r.key ->> %L) COLLATE "C"', p.name)
                ELSE format('(r.key ->> %L)::%s%s', p.name, p.type, p.collated) END,
           p.nullable
    FROM (SELECT k.attnum AS n, coalesce(a.attname::text, CASE WHEN d.text LIKE '(%)' THEN substr(d.text, 2, length(d.text) - 2) ELSE d.text END) AS name,
                 format_type(k.atttypid, -1) AS type, coalesce(quote_ident(a.attname), d.text) AS expression,
                 k.atttypid = 'timestamptz'::regtype AS zoned,
                 t.typcategory IN ('A', 'C') OR k.atttypid IN ('json'::regtype, 'jsonb'::regtype) AS structured,
                 t.typcategory = 'S' AND t.typtype = 'b' AND k.atttypid <> 'bpchar'::regtype AS textual,
                 CASE WHEN k.atttypid = 'bpchar'::regtype THEN ' COLLATE "C"' ELSE '' END AS collated,
                 NOT coalesce(a.attnotnull, false) AS nullable
          FROM pg_index i JOIN pg_attribute k ON k.attrelid = i.indexrelid AND k.attnum BETWEEN 1 AND i.indnkeyatts
          JOIN pg_type t ON t.oid = k.atttypid
          CROSS JOIN LATERAL (SELECT pg_get_indexdef(i.indexrelid, k.attnum::integer, true)) d (text)
          LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.attnum - 1] AND i.indkey[k.attnum - 1] <> 0
          WHERE i.indexrelid = $1) p
    ORDER BY p.n;
END
$$;

CREATE OR REPLACE FUNCTION oa.key_value(index oid) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
BEGIN
    RETURN (
    SELECT CASE WHEN i.indnullsnotdistinct OR k.missing IS NULL THEN k.key
                ELSE format('CASE WHEN %s THEN %s || jsonb_build_object(''oa_row'', %s) ELSE %s END', k.missing, k.key, coalesce(p.key, 'to_jsonb(oa_row)'), k.key) END
    FROM pg_index i
    CROSS JOIN LATERAL (SELECT format('jsonb_build_object(%s)', string_agg(format('%L, %s', o.name, o.value), ', ')),
                               string_agg(format('(%s) IS NULL', o.expression), ' OR ') FILTER (WHERE o.nullable)
                        FROM oa.key_parts(i.indexrelid) o) k (key, missing)
    LEFT JOIN LATERAL (SELECT format('jsonb_build_object(%s)', string_agg(format('%L, %s', o.name, o.value), ', '))
                       FROM pg_index j, oa.key_parts(j.indexrelid) o WHERE j.indrelid = i.indrelid AND j.indisprimary HAVING count(*) > 0) p (key) ON true
    WHERE i.indexrelid = $1);
END
$$;

CREATE OR REPLACE FUNCTION oa.revised_table(relation oid) RETURNS oa.revised_tables
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
DECLARE
    here text := oa.origin();
BEGIN
    RETURN (
    SELECT r FROM oa.revised_tables r, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1
      AND (r.relation = c.oid AND r.origin = here
           OR r.schema_name = n.nspname AND r.table_name = c.relname
              AND (r.origin <> here OR NOT EXISTS (SELECT FROM pg_class o WHERE o.oid = r.relation)))
    ORDER BY r.relation = c.oid AND r.origin = here DESC LIMIT 1);
END
$$;

CREATE OR REPLACE FUNCTION oa.is_audited(relation oid) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    RETURN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = $1 AND t.tgname = 'oa_audit_update' AND t.tgenabled IN ('O', 'A')
                   AND t.tgfoid = 'oa.audit()'::regprocedure);
END
$$;
