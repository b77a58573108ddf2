export declare const DEFECTS: readonly {
  readonly name: string;
  readonly room: string;
  readonly profile: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}[];
