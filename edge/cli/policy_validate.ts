/** `edgemesh policy validate FILE...` */
import { API_VERSION } from "../agent/documents.ts";
import { EdgeError, EXIT_FAILED, EXIT_OK } from "../errors.ts";
import { type Finding, validateText } from "../policy/validate.ts";
import type { CommandContext } from "./context.ts";
import { readTexts } from "./files.ts";
import { clean, printDocument } from "./output.ts";

/** Exit code 0: all is valid; 1: something is not; 2: a file cannot be read, or there is nothing in it. */
export async function policyValidate(context: CommandContext): Promise<number> {
  const { terminal, args, loaded: { config } } = context;
  if (args.length === 0) throw new EdgeError("EDGE_USAGE", "Cannot validate: no file was named");
  const seen = new Map<string, string>();
  const results = (await readTexts(args, terminal)).map(({ text, place }) => validateText(place, text, seen));
  const documents = results.reduce((sum, result) => sum + result.documents, 0);
  const valid = results.reduce((sum, result) => sum + result.valid, 0);
  const findings = results.flatMap((result) => result.findings);
  if (documents === 0 && findings.length === 0) {
    throw new EdgeError("EDGE_MANIFEST_INVALID", `Cannot validate "${args.join(", ")}": no document in it`);
  }
  const invalid = documents - valid;
  const document = { apiVersion: API_VERSION, kind: "ValidationResult", documents, valid, invalid, findings };
  if (!await printDocument(terminal, config.output, document)) {
    for (const finding of findings) terminal.out(`${clean(findingText(finding))}\n`);
    terminal.out(`${documents} ${documents === 1 ? "document" : "documents"}: ${valid} valid, ${invalid} not\n`);
  }
  return findings.length === 0 ? EXIT_OK : EXIT_FAILED;
}

/** "web.yaml:12: CiliumNetworkPolicy shop/web: spec.ingress[0]: Unknown field ..." */
function findingText({ file, line, object, path, message }: Finding): string {
  const parts = [`${file}:${line}`, ...(object === "" ? [] : [object]), ...(path === "" ? [] : [path]), message];
  return parts.join(": ");
}
