/** What Bun makes of a library that is imported as a file. */
declare module "*.so" {
  const path: string;
  export default path;
}
