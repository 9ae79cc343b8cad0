/**
 * What objects that are about to be stored or deleted make of services: for the bounds of `apply`, and for a dry run, which must
 * know what members would be told.
 */
import {
  type EndpointSlice,
  MAX_SERVICE_ADDRESSES,
  readEndpointSlice,
  readService,
  type Service,
  serviceEntryOf,
} from "../../src/hub/services.ts";
import type { ServiceEntry } from "../../src/mesh/entries.ts";
import type { HubModel } from "./model.ts";
import { type Accepted, ENDPOINT_SLICE, SERVICE } from "./read_objects.ts";
import type { ObjectName } from "../sync/admin_messages.ts";

/**
 * Entries of services without some slices, by `<namespace>/<name>`; those without a Service object are left out.
 * @param slices to be deleted
 */
export function servicesWithout(
  model: Pick<HubModel, "services" | "endpointSlices" | "slicesOf">,
  slices: readonly ObjectName[],
): ReadonlyMap<string, ServiceEntry> {
  const gone = new Set(slices.map(({ namespace, name }) => `${namespace}/${name}`));
  const entries = new Map<string, ServiceEntry>();
  for (const key of gone) {
    const slice = model.endpointSlices.get(key)?.slice;
    const name = slice && `${slice.namespace}/${slice.service}`;
    const service = name === undefined ? undefined : model.services.get(name)?.service;
    if (name === undefined || service === undefined || entries.has(name)) continue;
    const left = [...model.slicesOf(name)].filter(([other]) => !gone.has(other)).map(([, other]) => other);
    entries.set(name, serviceEntryOf(service, left));
  }
  return entries;
}

/** Entries of all services that the objects touch, by `<namespace>/<name>`; those without a Service object are left out. */
export function changedServices(
  model: Pick<HubModel, "services" | "endpointSlices" | "slicesOf">,
  objects: readonly Accepted[],
): ReadonlyMap<string, ServiceEntry> {
  const services = new Map<string, Service>();
  const slices = new Map<string, EndpointSlice>();
  const touched = new Set<string>();
  for (const { kind, namespace, name, document } of objects) {
    const key = `${namespace}/${name}`;
    if (kind === SERVICE) {
      const result = readService(document);
      if ("service" in result) services.set(key, result.service);
      touched.add(key);
    } else if (kind === ENDPOINT_SLICE) {
      const old = model.endpointSlices.get(key)?.slice;
      if (old !== undefined) touched.add(`${namespace}/${old.service}`);
      const result = readEndpointSlice(document);
      if (!("slice" in result)) continue;
      slices.set(key, result.slice);
      touched.add(`${namespace}/${result.slice.service}`);
    }
  }
  const bySlice = (service: string): EndpointSlice[] => [
    ...[...model.slicesOf(service)].filter(([key]) => !slices.has(key)).map(([, slice]) => slice),
    ...[...slices.values()].filter((slice) => `${slice.namespace}/${slice.service}` === service),
  ];
  const entries = new Map<string, ServiceEntry>();
  for (const name of touched) {
    const service = services.get(name) ?? model.services.get(name)?.service;
    if (service !== undefined) entries.set(name, serviceEntryOf(service, bySlice(name)));
  }
  return entries;
}

/** Why members would refuse one of these; `undefined`: they would not. */
export function serviceFault(entries: ReadonlyMap<string, ServiceEntry>): string | undefined {
  for (const [name, { addresses }] of entries) {
    if (addresses.length > MAX_SERVICE_ADDRESSES) {
      return `service ${name} would have ${addresses.length} addresses, more than ${MAX_SERVICE_ADDRESSES}`;
    }
  }
  return undefined;
}
