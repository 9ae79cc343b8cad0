/**
 * The Kubernetes objects of a mesh file: policies, CIDR groups, services and their slices, as entries of the mesh state. What the
 * rules of a policy say is judged by the policy engine, and shown in status; all else is read here.
 */
import { formatAddress, parseAddress } from "../../src/ip/address.ts";
import {
  type EndpointSlice,
  MAX_SERVICE_ADDRESSES,
  readEndpointSlice,
  readService,
  type Service,
  serviceEntryOf,
} from "../../src/hub/services.ts";
import type { EntryValue, PolicySettings } from "../../src/mesh/entries.ts";
import type { PolicyError } from "../../src/policy/errors.ts";
import { readCidrGroup } from "../../src/policy/read_cidr_group.ts";
import * as values from "../config_values.ts";
import { isNamespaced } from "../kinds.ts";
import type { Shape } from "./shape.ts";

/** Notes what is wrong with a document; the place is the caller's business. */
export type Fail = (message: string) => void;

/** The objects of one file. */
export class MeshObjects {
  readonly #entries = new Map<string, EntryValue>();
  readonly #services = new Map<
    string,
    { readonly service: Service; readonly backends: readonly string[]; readonly fail: Fail }
  >();
  readonly #slices = new Map<string, { readonly slice: EndpointSlice; readonly fail: Fail }>();

  /** Takes a document of `policies`. */
  put(data: unknown, fail: Fail): void {
    const kind = (data as { kind?: unknown } | null)?.kind;
    switch (kind) {
      case "CiliumCIDRGroup": {
        const result = readCidrGroup(data);
        if ("errors" in result) return noteErrors(result.errors, fail);
        return this.#set(`cidrgroup/${result.group.name}`, data, `${kind} "${result.group.name}"`, fail);
      }
      case "Service":
        return this.#putService(data, [], fail);
      case "EndpointSlice":
        return this.#putSlice(data, fail);
      case "Namespace":
        return fail('is a Namespace: write its labels under "namespaces"');
      default:
        return this.#putPolicy(data, fail);
    }
  }

  /** Takes a document of `services`: a Service, and `backends`, the addresses behind it. */
  putService(data: unknown, fail: Fail): void {
    if (typeof data !== "object" || data === null || Array.isArray(data)) return fail("must be a mapping");
    const { backends = [], ...document } = data as Record<string, unknown>;
    if (!Array.isArray(backends) || backends.length > MAX_SERVICE_ADDRESSES) {
      return fail(`needs backends that are a list of at most ${MAX_SERVICE_ADDRESSES} addresses`);
    }
    const addresses: string[] = [];
    for (const text of backends) {
      const address = typeof text === "string" ? parseAddress(text) : undefined;
      if (address === undefined) return fail(`has a backend that is no IP address: ${JSON.stringify(text)}`);
      addresses.push(formatAddress(address));
    }
    this.#putService(document, addresses, fail);
  }

  /** All entries, once every document was given. */
  finish(): ReadonlyMap<string, EntryValue> {
    for (const { slice, fail } of this.#slices.values()) {
      const service = `${slice.namespace}/${slice.service}`;
      if (!this.#services.has(service)) fail(`belongs to Service "${service}", which this file does not have`);
    }
    for (const [name, { service, backends, fail }] of this.#services) {
      const { namespace } = service;
      const own = [...this.#slices.values()].map(({ slice }) => slice)
        .filter((slice) => slice.namespace === namespace && slice.service === service.name);
      const listed = { namespace, name: "backends", service: service.name, addresses: backends };
      const entry = serviceEntryOf(service, [...own, listed]);
      if (entry.addresses.length > MAX_SERVICE_ADDRESSES) fail(`needs at most ${MAX_SERVICE_ADDRESSES} addresses`);
      this.#entries.set(`service/${name}`, entry);
    }
    return this.#entries;
  }

  #putService(data: unknown, backends: readonly string[], fail: Fail): void {
    const result = readService(data);
    if ("errors" in result) return noteErrors(result.errors, fail);
    const { service } = result;
    const name = `${service.namespace}/${service.name}`;
    if (this.#services.has(name)) return fail(`repeats Service "${name}"`);
    if (service.selector !== undefined && backends.length > 0) {
      return fail(`has a selector, and needs no backends: it means the members that are selected`);
    }
    this.#services.set(name, { service, backends, fail });
  }

  #putSlice(data: unknown, fail: Fail): void {
    const result = readEndpointSlice(data);
    if ("errors" in result) return noteErrors(result.errors, fail);
    const { slice } = result;
    const name = `${slice.namespace}/${slice.name}`;
    if (this.#slices.has(name)) return fail(`repeats EndpointSlice "${name}"`);
    this.#slices.set(name, { slice, fail });
  }

  /** Only the outer shape is read here. */
  #putPolicy(data: unknown, fail: Fail): void {
    const { kind, metadata } = (data ?? {}) as { kind?: unknown; metadata?: { name?: unknown; namespace?: unknown } };
    if (typeof kind !== "string" || !/^[A-Za-z]+$/.test(kind)) return fail("needs a kind");
    if (typeof metadata?.name !== "string" || !/^[a-z0-9.-]+$/.test(metadata.name)) return fail("needs metadata.name");
    const namespace = isNamespaced(kind) ? metadata.namespace ?? "default" : "";
    if (typeof namespace !== "string" || namespace.includes("/")) {
      return fail("has a metadata.namespace that is no name");
    }
    const key = `policy/${kind}/${namespace}/${metadata.name}`;
    this.#set(key, data, `${kind} "${namespace}/${metadata.name}"`, fail);
  }

  #set(key: string, data: unknown, object: string, fail: Fail): void {
    if (this.#entries.has(key)) return fail(`repeats ${object}`);
    this.#entries.set(key, data as EntryValue);
  }
}

function noteErrors(errors: readonly PolicyError[], fail: Fail): void {
  for (const { path, message } of errors) fail(`is wrong: ${path === "" ? message : `${path}: ${message}`}`);
}

/** The block `policy`: how policies are read, by the words of `edgemesh policy get -o json`. */
export function readPolicyBlock(shape: Shape | undefined): PolicySettings {
  const fqdnShape = shape?.shape("fqdn");
  const minTtlSeconds = fqdnShape?.optional("minTtlSeconds", values.integer(0, 0x7fffffff));
  const maxIpsPerName = fqdnShape?.optional("maxIpsPerName", values.integer(1, 1_000_000));
  const rejectCode = fqdnShape?.optional("rejectCode", values.choice("refused", "nameError"));
  fqdnShape?.done();
  const auditMode = shape?.optional("auditMode", values.onOff);
  const cidrMatchMode = shape?.texts("cidrMatchMode", values.choice("nodes", "pods")) ?? [];
  const hostFirewall = shape?.optional("hostFirewall", values.onOff);
  const settings: PolicySettings = {
    enforcementMode: shape?.optional("enforcementMode", values.choice("default", "always", "never")) ?? "default",
    defaultLocalCluster: shape?.optional("defaultLocalCluster", values.onOff) ?? true,
    allowLocalhost: shape?.optional("allowLocalhost", values.choice("always", "policy")) ?? "always",
    ...(auditMode !== undefined && { auditMode }),
    ...(cidrMatchMode.length > 0 && { cidrMatchMode: [...new Set(cidrMatchMode)] }),
    ...(hostFirewall !== undefined && { hostFirewall }),
    ...(fqdnShape !== undefined && {
      fqdn: {
        ...(minTtlSeconds !== undefined && { minTtlSeconds }),
        ...(maxIpsPerName !== undefined && { maxIpsPerName }),
        ...(rejectCode !== undefined && { rejectCode }),
      },
    }),
  };
  shape?.done();
  return settings;
}
