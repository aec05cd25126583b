"use strict";
// The page's own scripts, compressed: unpacked here, without a network.
(async () => {
  const told = document.createElement("p");
  told.setAttribute("role", "status");
  document.querySelector("header").append(told);
  try {
    const bytes = Uint8Array.from(atob(document.getElementById("packed").textContent), letter => letter.charCodeAt(0));
    const script = document.createElement("script");
    script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    document.body.append(script);
    told.remove();
  } catch (error) {
    told.textContent = `This browser cannot unpack the page's formulas (${error.message}); a browser of 2023 or later can.`;
  }
})();
