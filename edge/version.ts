/** The release, and where it was built from. `scripts/build` defines both names; a program that runs from source has neither. */
declare const EDGEMESH_VERSION: string | undefined;
declare const EDGEMESH_COMMIT: string | undefined;

/** From source equal to the version in `package.json`; a test compares them. */
export const VERSION: string = typeof EDGEMESH_VERSION === "string" ? EDGEMESH_VERSION : "0.1.0";
/** "source" for a program that was not built. */
export const COMMIT: string = typeof EDGEMESH_COMMIT === "string" ? EDGEMESH_COMMIT : "source";
